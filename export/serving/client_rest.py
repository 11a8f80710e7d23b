"""Asks a TensorFlow Serving server for features over REST; needs Python only.

`python client_rest.py http://localhost:8501 MODEL PICTURE...` prints one line of JSON for each picture.
"""

import base64
import contextlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def embed(
    server: str, model: str, pictures: list[bytes], timeout: float = 60.0
) -> list[list[float]]:
    """Returns the features of pictures.

    Args:
        server: str. Address of the REST port, `http://host:8501`.
        model: str. Name of the model in `models.config`.
        pictures: list of bytes. JPEG, PNG or BMP files of any sizes.
        timeout: float. Seconds.

    Returns:
        list with a list of floats for each picture.

    Raises:
        ValueError: If the server refuses the request; the message is the server's.
    """
    instances = [{"b64": base64.b64encode(picture).decode()} for picture in pictures]
    body = json.dumps({"signature_name": "bytes", "instances": instances}).encode()
    url = f"{server.rstrip('/')}/v1/models/{model}:predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return json.load(reply)["predictions"]
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]
        raise ValueError(f"{error.code}: {text}") from error


def main() -> int:
    """Prints the features of the pictures named on the command line."""
    if len(sys.argv) < 4:
        print(f"usage: {sys.argv[0]} http://HOST:8501 MODEL PICTURE...", file=sys.stderr)
        return 2
    server, model, *names = sys.argv[1:]
    try:
        rows = embed(server, model, [Path(name).read_bytes() for name in names])
    except (OSError, ValueError) as error:
        print(f"{server}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    for name, features in zip(names, rows, strict=True):
        print(json.dumps({"picture": name, "features": features}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
