#!/bin/sh
# Starts one worker on each of several bare hosts over ssh, waits for all, and ends as the worst of them ended.
#
#   hosts.sh HOSTS COMMAND...
#
# HOSTS is as for worker.sh. Every host has this folder under the same path, can be reached by ssh without a question,
# and sees the data and the --workdir under the same paths. LAUNCH_SSH is the command that runs another one on a
# host: ssh by default.
#
#   hosts.sh node-a,node-b python training/run.py --method simclr --data photos --strategy multiworker --workdir w
#
# Ctrl-C or SIGTERM here stops all workers with a checkpoint. The same command goes on.
set -eu

if [ $# -lt 2 ]; then
    echo "hosts.sh: Expected HOSTS COMMAND... Received: $# argument(s)." >&2
    exit 2
fi
hosts=$1
shift
worker=$(cd "$(dirname "$0")" && pwd)/worker.sh

quote() { # each argument in single quotes, for the shell of the other host
    for argument; do
        printf "'%s' " "$(printf %s "$argument" | sed "s/'/'\\\\''/g")"
    done
}

# The remote shell gives its process number first, by which a signal can be sent to the worker later.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
remote="cd $(quote "$PWD") && echo \$\$ && exec $(quote "$worker" "$hosts")"
command=$(quote "$@")

index=0 workers=''
old_ifs=$IFS
IFS=,
for host in $hosts; do
    IFS=$old_ifs
    name=${host%%:*}
    {
        # shellcheck disable=SC2086  # LAUNCH_SSH may hold options
        ${LAUNCH_SSH:-ssh} "$name" "$remote $index $command" < /dev/null && code=0 || code=$?
        echo $code > "$folder/$index.code"
    } | {
        read -r process && echo "$name $process" > "$folder/$index.process"
        while IFS= read -r line; do
            printf '[%s] %s\n' "$index" "$line"
        done
    } &
    workers="$workers $!"
    index=$((index + 1))
done

stop() {
    for file in "$folder"/*.process; do
        read -r name process < "$file"
        # shellcheck disable=SC2086
        ${LAUNCH_SSH:-ssh} "$name" "kill -TERM $process" < /dev/null || true
    done
}
trap stop INT TERM

for worker in $workers; do
    while kill -0 "$worker" 2> /dev/null; do
        wait "$worker" || true # a signal ends the first wait
    done
done
worst=0
for file in "$folder"/*.code; do
    read -r code < "$file"
    [ "$code" -le "$worst" ] || worst=$code
done
exit "$worst"
