#!/bin/sh
# Runs a command as one worker of several: sets TF_CONFIG from a list of hosts, then becomes the command.
#
#   worker.sh HOSTS INDEX COMMAND...
#
# HOSTS   name or address of every worker, separated by commas and in the same order everywhere; a port may follow
#         after a colon. Without one it is KERAS_SSL_PORT, or 29400.
# INDEX   which of them this is, from 0 on; worker 0 writes for all.
#
# On each of two hosts, with its own INDEX, the same --workdir on a file system that both see, and the same --data:
#   worker.sh node-a,node-b 0 python training/run.py --method simclr --data photos --strategy multiworker --workdir w
set -eu

fail() {
    echo "worker.sh: $1" >&2
    exit 2
}

[ $# -ge 3 ] || fail "Expected HOSTS INDEX COMMAND... Received: $# argument(s)."
hosts=$1 index=$2
shift 2

case $hosts in
    '' | ,* | *, | *,,*) fail "Expected host names separated by commas. Received: '$hosts'." ;;
    *[!A-Za-z0-9.,:_-]*) fail "Expected names, dots, colons and commas in HOSTS. Received: '$hosts'." ;;
esac
case $index in
    '' | *[!0-9]*) fail "Expected INDEX to be a number from 0 on. Received: '$index'." ;;
esac

workers='' count=0
old_ifs=$IFS
IFS=,
for host in $hosts; do
    case $host in
        *:*) ;;
        *) host=$host:${KERAS_SSL_PORT:-29400} ;;
    esac
    workers=$workers${workers:+, }\"$host\"
    count=$((count + 1))
done
IFS=$old_ifs
[ "$index" -lt "$count" ] || fail "Expected INDEX below $count, the number of hosts. Received: $index."

TF_CONFIG="{\"cluster\": {\"worker\": [$workers]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
export TF_CONFIG
exec "$@"
