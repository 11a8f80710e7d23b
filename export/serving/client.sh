#!/bin/sh
# Features of one picture from a TensorFlow Serving server; needs curl and base64.
# sh client.sh http://localhost:8501 MODEL PICTURE
set -eu
if [ $# -ne 3 ]; then
  echo "usage: $0 http://HOST:8501 MODEL PICTURE" >&2
  exit 2
fi
test -r "$3" || { echo "Expected a picture. Received: $3, which cannot be read." >&2; exit 1; }
{
  printf '{"signature_name": "bytes", "instances": [{"b64": "'
  base64 < "$3" | tr -d '\n'
  printf '"}]}'
} | curl --silent --show-error --fail-with-body --data-binary @- \
  --header 'Content-Type: application/json' "${1%/}/v1/models/$2:predict"
