"""`https://` files with the standard library, behind the two methods of a file system that downloads need."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any, BinaryIO, cast

from avex._core.version import __version__

# Seconds without a byte; a whole download may take as long as it likes.
TIMEOUT = 20.0
_GONE = {401, 403, 404, 410}
_NO_HEAD = {400, 403, 405, 501}


class HttpFiles:
    """Files of web servers: what they are, and their bytes.

    Proxies are taken from the environment, and redirects are followed.

    Example:
        >>> HttpFiles().info("https://example.org/weights.pt")["size"]            # doctest: +SKIP
        377_000_000
    """

    def info(self, url: str) -> dict[str, Any]:
        """Return `size` and what names the version of a file (`ETag`, `LastModified`), each None if not stated.

        Raises:
            FileNotFoundError: The server says that there is no such file, or that it is private.
            OSError: The server cannot be reached, or fails.
        """
        try:
            answer = _request(url, "HEAD")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _NO_HEAD:
                raise _missing(error) from error
            answer = self.open(url)
        with answer:
            headers = cast(http.client.HTTPResponse, answer).headers
            length = headers.get("Content-Length")
            return {
                "size": int(length) if length is not None and length.isdecimal() else None,
                "ETag": headers.get("ETag"),
                "LastModified": headers.get("Last-Modified"),
            }

    def open(self, url: str, mode: str = "rb") -> BinaryIO:
        """Open a file for reading.

        Raises:
            FileNotFoundError: As for `info`.
            OSError: As for `info`; also while reading, if the connection breaks.
        """
        try:
            return _request(url, "GET")
        except urllib.error.HTTPError as error:
            error.close()
            raise _missing(error) from error


def _request(url: str, method: str) -> BinaryIO:
    # "identity": the size that the server states shall be that of the file.
    headers = {"User-Agent": f"avex/{__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        return cast(BinaryIO, urllib.request.urlopen(request, timeout=TIMEOUT))
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise ConnectionError(str(error.reason)) from error
    except http.client.HTTPException as error:  # the only failures of urllib that are no OSError
        raise OSError(f"the server's answer is no HTTP ({type(error).__name__}: {error})") from error


def _missing(error: urllib.error.HTTPError) -> OSError:
    if error.code in _GONE:
        return FileNotFoundError(f"HTTP {error.code} {error.reason}")
    return ConnectionError(f"HTTP {error.code} {error.reason}")
