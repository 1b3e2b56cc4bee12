#!/bin/sh
# The taxi lab from nothing to 246,414 fares. Run by `make demo`; a second run reuses the steps' outputs, unless --force.
set -eu
cd "$(dirname "$0")"

work=../../.demo/taxi-lab
mkdir -p "$work/trips" ../../.demo/home
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

taxi=../nyc-taxi-fares
[ -f "$work/training.csv" ] || run python $taxi/simulate_trips.py --rows 20000 --seed 1 --with-fares "$work/training.csv"
[ -f "$work/trips/trips.csv" ] || run python $taxi/simulate_trips.py --rows 11734 --seed 7 "$work/trips/trips.csv"
[ -f "$work/model/MLmodel" ] || run python $taxi/train.py "$work/training.csv" "$work/model"
cp MLTable "$work/trips/MLTable"

run batchpoint data create --file data.yml --query "[name, version]" -o tsv
run batchpoint model create --file model.yml --query "[name, version]" -o tsv
run batchpoint compute create --file compute.yml --query name -o tsv
[ "${1:-}" != --register-only ] || exit 0

job=taxi-lab-$(date -u +%Y%m%d-%H%M%S)-$$
force=false
[ "${1:-}" != --force ] || force=true
run batchpoint job create --file pipeline.yml --name "$job" --set "settings.force_rerun=$force" --stream
run batchpoint job list --parent-job-name "$job" --query "[].{step: step_name, status: status, reused: reused_job_name}" -o table
run batchpoint job download --name "$job" --output-name fares --download-path "$work/$job"

fares=$(find "$work/$job" -name nyc-taxi-fares.csv)
step=$(batchpoint job list --parent-job-name "$job" --query "[?step_name=='inference'].[reused_job_name || name]" -o tsv)
logs=$(batchpoint job show --name "$step" --query folder -o tsv)/logs
run head -n 6 "$fares"
run python check_lab.py "$work/trips/trips.csv" 21 "$fares" "$logs"

printf '\nWhere everything lies:\n'
printf '  fares, downloaded        %s\n' "$(realpath "$fares")"
printf '  fares, published         %s\n' "$(batchpoint job show --name "$job" --query outputs.fares.uri -o tsv)"
printf '  logs of the workers      %s\n' "$logs/user"
printf '  trips and model          %s\n' "$(realpath "$work")"
printf '  everything remembered    %s\n' "$BATCHPOINT_HOME"
printf '\nThe server goes on for half an hour; this ends it: BATCHPOINT_HOME=%s .venv/bin/batchpoint down\n' "$BATCHPOINT_HOME"
