#!/bin/sh
# From nothing to 250,000 taxi fares, with `batchpoint` on the PATH; a second run reuses the data, the model and what is registered.
set -eu
cd "$(dirname "$0")"

work=../../.demo/taxi-fares
mkdir -p "$work" ../../.demo/home
BATCHPOINT_HOME=$(cd ../../.demo/home && pwd)
export BATCHPOINT_HOME

# Show each command as one would type it, then run it.
bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
run() {
    printf '\n%s$' "$bold"
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./=:,+-]*) printf ' "%s"' "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '%s\n' "$plain"
    "$@"
}

[ -f "$work/training.csv" ] || run python simulate_trips.py --rows 20000 --seed 1 --with-fares "$work/training.csv"
[ -f "$work/trips.csv" ] || run python simulate_trips.py --rows 250000 --seed 7 "$work/trips.csv"
[ -f "$work/model/MLmodel" ] || run python train.py "$work/training.csv" "$work/model"

run batchpoint model create --file model.yml --query name -o tsv
run batchpoint compute create --file compute.yml --query name -o tsv
run batchpoint endpoint create --file endpoint.yml --query name -o tsv
run batchpoint deployment create --file deployment.yml --set-default --query name -o tsv
[ "${1:-}" != --register-only ] || exit 0

job=taxi-fares-$(date -u +%Y%m%d-%H%M%S)-$$
run batchpoint endpoint invoke --name taxi-fares --input "$work/trips.csv" --job-name "$job" --stream
run batchpoint job show --name "$job" --query receipt -o yaml
run batchpoint job download --name "$job" --download-path "$work/$job"

predictions=$(find "$work/$job" -name predictions.csv)
run head -n 6 "$predictions"
run python check_predictions.py "$work/trips.csv" "$predictions"

printf '\nWhere everything lies:\n'
printf '  predictions, downloaded  %s\n' "$(realpath "$predictions")"
printf '  predictions, published   %s\n' "$(batchpoint job show --name "$job" --query outputs.score.uri -o tsv)"
printf "  the job's logs           %s\n" "$(batchpoint job show --name "$job" --query folder -o tsv)/logs"
printf '  trips and model          %s\n' "$(realpath "$work")"
printf '  everything remembered    %s\n' "$BATCHPOINT_HOME"
printf '\nThe server goes on for half an hour; this ends it: BATCHPOINT_HOME=%s .venv/bin/batchpoint down\n' "$BATCHPOINT_HOME"
