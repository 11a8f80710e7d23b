"""Questions to the test server, by gRPC and REST, shared by the tests of this folder."""

import base64
import io
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image


def refused(call, code="INVALID_ARGUMENT"):
    import grpc

    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code().name == code
    return caught.value.details()


def post(server, body, model="swav", code=200):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url(f"/v1/models/{model}:predict"), body)
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            found, content = reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        found, content = error.code, json.load(error)
    assert found == code, content
    return content


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def large_jpeg(**settings):
    """50 megapixels of a smooth picture."""
    coarse = np.random.default_rng(0).integers(40, 215, (5, 5, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(coarse).resize((8000, 6250), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=80, **settings)
    return buffer.getvalue(), image
