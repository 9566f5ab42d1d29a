"""`python -m avex`."""

from avex.cli import main

if __name__ == "__main__":
    main()
