#!/bin/sh
# Say what is being done and do it without its output; where it fails, show the end of the output.
#   usage: scripts/run_quietly.sh MESSAGE LOG COMMAND...
set -u
message=$1
log=$2
shift 2

printf '%s ' "$message"
start=$(date +%s)
mkdir -p "$(dirname "$log")"
"$@" >"$log" 2>&1
status=$?
if [ $status -eq 0 ]; then
    echo "done in $(($(date +%s) - start)) s"
else
    echo "failed"
    tail -n 40 "$log" >&2
    echo "Failed: $*" >&2
    echo "All of its output is in $log." >&2
fi
exit $status
