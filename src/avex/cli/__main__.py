"""`python -m avex.cli`."""

from avex.cli import main

if __name__ == "__main__":
    main()
