"""Shell scripts for Azure's command line run as they are, behind the function ``az`` that the page shows.

The scripts were written here, in the shape of Azure ML's public ones: today's grammar, and that of the preview of 2021.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from console_fences import CHECKOUT, commands_in
from shipped import Shipped

SCORE = """\
import os


def init():
    global greeting
    folder = os.environ["AZUREML_MODEL_DIR"]
    greeting = open(next(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)).read().strip()


def run(mini_batch):
    return [f"{greeting} {os.path.basename(path)}" for path in mini_batch]
"""

(AZ,) = re.findall(r"^> (az\(\) .*)$", (CHECKOUT / "docs/how-to/move-from-azure-ml.md").read_text(), re.MULTILINE)

TODAY = """\
az login
az account set -s 00000000-0000-0000-0000-000000000000
az extension add -n ml -y
az configure --defaults group=group workspace=risk location=west
ENDPOINT_NAME=greet-$RANDOM

az ml compute create -n batch-cluster --type AmlCompute --min-instances 0 --max-instances 2
az ml model create --name greeter --path model --type custom_model --tags team=risk stage=test
az ml batch-endpoint create --name $ENDPOINT_NAME -f endpoint.yml
az ml batch-deployment create -f deployment.yml --endpoint-name $ENDPOINT_NAME --set-default \\
  --set resources.instance_count=1 settings.mini_batch_size=1
test "$(az ml batch-endpoint show -n $ENDPOINT_NAME --query defaults.deployment_name -o tsv)" = plain

JOB_NAME=$(az ml batch-endpoint invoke --name $ENDPOINT_NAME --input data --input-type uri_folder \\
  --mini-batch-size 2 --instance-count 1 --set retry_settings.max_retries=1 --query name -o tsv)
az ml job show -n $JOB_NAME --web
az ml job stream -n $JOB_NAME
STATUS=$(az ml job show -n $JOB_NAME --query status -o tsv)
if [[ $STATUS == "Completed" ]]; then echo "Job completed"; else exit 2; fi
az ml job download --name $JOB_NAME --output-name score --download-path ./result
cat result/named-outputs/score/predictions.csv

az ml data create --name texts --version 1 --type uri_folder --path data
DATA_ID=$(az ml data show -n texts --label latest --query id -o tsv)
TOKEN=$(az account get-access-token --resource https://ml.azure.com --query accessToken -o tsv)
SCORING_URI=$(az ml batch-endpoint show --name $ENDPOINT_NAME --query scoring_uri -o tsv)
curl -sf $SCORING_URI -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
  -d '{"properties": {"InputData": {"texts": {"JobInputType": "UriFolder", "Uri": "'$DATA_ID'"}}, "name": "by-curl"}}'
az ml job stream -n by-curl
JOB_NAME=$(az ml batch-endpoint invoke --name $ENDPOINT_NAME --deployment-name plain \\
  --set inputs.any.type=uri_folder inputs.any.path=$DATA_ID output_file_name=mine.csv \\
  --output-path azureml://datastores/workspaceblobstore/paths/mine --query name -o tsv)
STATUS=Queued
while [[ $STATUS != Completed ]]; do
  [[ $STATUS == Failed || $STATUS == Canceled ]] && exit 1
  sleep 0.2; STATUS=$(az ml job show -n $JOB_NAME --query status -o tsv)
done
az ml batch-deployment list-jobs -n plain -e $ENDPOINT_NAME --query "[?status=='Completed'].name | length(@)" -o tsv
az ml batch-endpoint delete --name $ENDPOINT_NAME --yes
code=0; az ml batch-endpoint show --name $ENDPOINT_NAME || code=$?
echo "gone: $code"
"""

PREVIEW = """\
az ml endpoint create --type batch --file all.yml
test "$(az ml endpoint show --name greet --type batch --query traffic.plain_one -o tsv)" = 100
az ml endpoint update --name greet --type batch --deployment-file more.yml

az ml data create --name texts --version 1 --type uri_folder --path data
invoke="az ml endpoint invoke --name greet --type batch --query name -o tsv"
for input in "--input-local-path data" "--input-data azureml:texts:1" \\
             "--input-local-path data --input-datastore azureml:workspaceblobstore --input-path in"; do
  job=$($invoke $input --mini-batch-size 1 --instance-count 1)
  az ml job log -n $job --only-show-errors
  az ml job download -n $job --output-name score --download-path $job
  md5sum < $job/predictions.csv >> sums
done
sort -u sums | wc -l
az ml job show -n $job --query interaction_endpoints.studio -o tsv

az ml endpoint update --name greet --type batch --traffic plain_one:0,loud_one:100
job=$($invoke --input-data azureml:texts:1 --output-datastore azureml:workspaceblobstore --output-path mine \\
  --set output_file_name=mine.csv)
az ml job log -n $job --only-show-errors
az ml job download -n $job --output-name score --download-path mine
cat mine/mine.csv
test "$(az ml endpoint list-jobs --name greet -t batch --query [].name -o tsv)" = $job
code=0; az ml endpoint update --name greet --type batch --traffic loud_one:50 || code=$?
echo "half: $code"
az ml endpoint delete --name greet --type batch --yes
"""

REST = """\
eval "$(batchpoint azureml-env)"
export CURL_CA_BUNDLE=$REQUESTS_CA_BUNDLE
jq() {  # jq -r .path, of which the machine may have none
  python -c 'import json, re, sys
found = json.load(sys.stdin)
for key in re.findall(r"[A-Za-z_]+|[0-9]+", sys.argv[2]):
    found = found[int(key)] if key.isdigit() else (found or {}).get(key)
print("null" if found is None else found if isinstance(found, str) else json.dumps(found))' "$@"
}
SUBSCRIPTION_ID=$(az account show --query id -o tsv)
RESOURCE_GROUP=$(az group show --query name -o tsv)
WORKSPACE=$(az ml workspace show --query name -o tsv)
LOCATION=$(az ml workspace show --query location -o tsv)
TOKEN=$(az account get-access-token --query accessToken -o tsv)
ROOT=/subscriptions/$SUBSCRIPTION_ID/resourceGroups/$RESOURCE_GROUP
ROOT=$ROOT/providers/Microsoft.MachineLearningServices/workspaces/$WORKSPACE
ENDPOINT=$ROOT/batchEndpoints/greet-$RANDOM

arm() {  # arm PUT models/greeter/versions/1 '{...}'
  curl --silent --fail-with-body --location --request $1 "$AZUREML_DEV_URL_MFE$2?api-version=2022-05-01" \\
    --header "Authorization: Bearer $TOKEN" --header "Content-Type: application/json" --data-raw "$3"
}
upload() {  # as az storage blob upload-batch -d $1 -s $2
  for file in $2/*; do
    curl --silent --fail-with-body --request PUT "$BLOBS/$1/$(basename $file)" \\
      --header "Authorization: Bearer $TOKEN" --header "x-ms-blob-type: BlockBlob" --data-binary @$file
  done
}
wait_for_completion() {
  status=unknown
  while [[ $status != Completed && $status != Succeeded && $status != Failed && $status != Canceled ]]; do
    result=$(curl --silent --location --request GET $1 --header "Authorization: Bearer $TOKEN")
    status=$(echo $result | jq -r .status)
    if [[ $status == null ]]; then status=$(echo $result | jq -r .properties.status); fi
    if [[ $status == null ]]; then status=Failed; fi
    sleep 0.2
  done
  echo "$2: $status"
}

response=$(curl --silent --location --request GET "$AZUREML_DEV_URL_MFE$ROOT/datastores?isDefault=true" \\
  --header "Authorization: Bearer $TOKEN")
DATASTORE=$(echo $response | jq -r .value[0].name)
BLOBS=$(echo $response | jq -r .value[0].properties.protocol)://
BLOBS=$BLOBS$(echo $response | jq -r .value[0].properties.accountName)
BLOBS=$BLOBS.blob.$(echo $response | jq -r .value[0].properties.endpoint)
BLOBS=$BLOBS/$(echo $response | jq -r .value[0].properties.containerName)

upload score code
response=$(arm PUT $ROOT/codes/score-greetings/versions/1 '{"properties": {"codeUri": "'$BLOBS/score'",}}')
upload model model
MODEL_URI=azureml://subscriptions/$SUBSCRIPTION_ID/resourceGroups/$RESOURCE_GROUP/workspaces/$WORKSPACE
MODEL_URI=$MODEL_URI/datastores/$DATASTORE/paths/model
response=$(arm PUT $ROOT/models/greeter/versions/1 '{"properties": {"modelUri": "'$MODEL_URI'"}}')
CONDA_FILE=$(cat conda.json | sed 's/"/\\\\"/g')
ENVIRONMENT=$ROOT/environments/greet-env/versions/$RANDOM
response=$(arm PUT $ENVIRONMENT '{"properties": {"condaFile": "'"$CONDA_FILE"'", "image": "i"}}')
response=$(arm PUT $ROOT/computes/batch-cluster '{"properties": {"computeType": "AmlCompute", "properties": {
  "osType": "Linux", "vmSize": "STANDARD_D2_V2", "scaleSettings": {"maxNodeCount": 2, "minNodeCount": 0},
  "remoteLoginPortPublicAccess": "NotSpecified"},}, "location": "'$LOCATION'"}')

response=$(arm PUT $ENDPOINT '{"properties": {"authMode": "aadToken"}, "location": "'$LOCATION'"}')
wait_for_completion $(echo $response | jq -r .properties.properties.AzureAsyncOperationUri) endpoint
response=$(arm PUT $ENDPOINT/deployments/plain '{"location": "'$LOCATION'", "properties": {
  "model": {"referenceType": "Id", "assetId": "'$ROOT/models/greeter/versions/1'"},
  "codeConfiguration": {"codeId": "'$ROOT/codes/score-greetings/versions/1'", "scoringScript": "score.py"},
  "environmentId": "'$ENVIRONMENT'", "compute": "'$ROOT/computes/batch-cluster'", "resources": {"instanceCount": 1},
  "maxConcurrencyPerInstance": "4", "retrySettings": {"maxRetries": 3, "timeout": "PT30S"}, "errorThreshold": "10",
  "loggingLevel": "info", "miniBatchSize": "5",}}')
wait_for_completion $(echo $response | jq -r .properties.properties.AzureAsyncOperationUri) deployment
response=$(arm PUT $ENDPOINT '{"properties": {"authMode": "aadToken", "defaults": {"deploymentName": "plain"}},
  "location": "'$LOCATION'"}')
wait_for_completion $(echo $response | jq -r .properties.properties.AzureAsyncOperationUri) defaults

SCORING_URI=$(arm GET $ENDPOINT | jq -r .properties.scoringUri)
TOKEN=$(az account get-access-token --resource https://ml.azure.com --query accessToken -o tsv)
invoke() {
  response=$(curl --silent --fail-with-body --location --request POST $SCORING_URI \\
    --header "Authorization: Bearer $TOKEN" --header "Content-Type: application/json" --data-raw "$1")
  JOB_ID=$(echo $response | jq -r .id)
  wait_for_completion $SCORING_URI/${JOB_ID##/*/} job
}
upload texts data
invoke '{"properties": {"dataset": {"dataInputType": "DataUrl", "Path": "'$BLOBS/texts'"}}}'
cat $BATCHPOINT_HOME/datastores/workspaceblobstore/azureml/${JOB_ID##/*/}/score/predictions.csv
response=$(arm PUT $ROOT/datasets/texts/versions/$RANDOM \\
  '{"properties": {"paths": [{"folder": "'$BLOBS/texts'"}]}}')
invoke '{"properties": {
  "InputData": {"texts": {"JobInputType": "UriFolder",
    "Uri": "azureml://locations/'$LOCATION/workspaces/$WORKSPACE'/data/texts/versions/labels/latest"}},
  "OutputData": {"customOutput": {"JobOutputType": "UriFolder",
    "Uri": "azureml://datastores/workspaceblobstore/paths/batch/greet/'$RANDOM'/"}},}}'
cat $BATCHPOINT_HOME/datastores/workspaceblobstore/batch/greet/*/predictions.csv
curl --silent --fail --request DELETE "$AZUREML_DEV_URL_MFE$ENDPOINT" --header "Authorization: Bearer $TOKEN"
arm GET $ENDPOINT | jq -r .error.code
"""

FILES = {
    "model/greeting.txt": "hello\n",
    "loud/greeting.txt": "HELLO\n",
    "code/score.py": SCORE,
    "data/a.txt": "a",
    "data/b.txt": "b",
    "conda.json": '{"channels": ["conda-forge"], "dependencies": ["python"], "name": "greet-env"}',
    "endpoint.yml": "$schema: https://azuremlschemas.azureedge.net/latest/batchEndpoint.schema.json\nname: greet\n",
    "deployment.yml": """\
$schema: https://azuremlschemas.azureedge.net/latest/modelBatchDeployment.schema.json
name: plain
endpoint_name: greet
type: model
model: azureml:greeter@latest
code_configuration: {code: code, scoring_script: score.py}
compute: azureml:batch-cluster
settings: {output_action: append_row, output_file_name: predictions.csv, retry_settings: {max_retries: 3, timeout: 30}}
""",
    "all.yml": """\
name: greet
type: batch
auth_mode: aad_token
traffic: {plain_one: 100}
deployments:
  - name: plain_one
    model: {name: greeter, version: 1, local_path: ./model}
    code_configuration: {code: {local_path: ./code}, scoring_script: score.py}
    mini_batch_size: 1
    output_configuration: {output_action: append_row, append_row_file_name: predictions.csv}
    retry_settings: {max_retries: 3, timeout: 30}
    compute: {target: azureml:local, instance_count: 1}
""",
    "more.yml": """\
name: loud_one
model: {name: shouter, version: 1, path: ./loud}
code_configuration: {code: {directory: ./code}, scoring_script: score.py}
batch_settings:
  partition_scheme: {mini_batch_size: 2}
  output_configuration: {output_action: append_row}
  retry_settings: {maximum_retries: 3, timeout_in_seconds: 30}
compute: {target: azureml:local, instance_count: 1}
""",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the scripts work with, and the command on the path."""
    work = tmp_path / "work"
    for name, text in FILES.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    commands_in(tmp_path)
    return work


def run_script(shipped: Shipped, folder: Path, script: str) -> list[str]:
    """The lines that a script prints, which has to end well."""
    environment = shipped.environment()
    environment["PATH"] = os.pathsep.join([str(folder.parent / "bin"), environment["PATH"]])
    whole = f"set -e\n{AZ}\n{script}"
    done = subprocess.run(
        ["bash", "-c", whole], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


def test_a_script_of_today_goes_from_an_endpoint_to_downloaded_predictions(shipped: Shipped, folder: Path) -> None:
    lines = run_script(shipped, folder, TODAY)

    assert not [line for line in lines if line.startswith("Usage:")], "what only prepares is taken without a word"
    after = lines.index("Job completed")
    assert lines[after + 1 : after + 4] == ["file,prediction", "a.txt,hello a.txt", "b.txt,hello b.txt"]
    assert lines[-2:] == ["3", "gone: 3"]
    kept = shipped.home / "workspaces" / "risk"
    mine = kept / "datastores" / "workspaceblobstore" / "mine" / "mine.csv"
    assert mine.read_text() == "file,prediction\na.txt,hello a.txt\nb.txt,hello b.txt\n"


def test_a_script_of_the_preview_goes_from_an_endpoint_to_downloaded_predictions(
    shipped: Shipped, folder: Path
) -> None:
    lines = run_script(shipped, folder, PREVIEW)

    assert "1" in lines, "three ways to name the same files give the same predictions"
    assert any(line.startswith("http://127.0.0.1:") and "/jobs/" in line for line in lines)
    after = lines.index("file,prediction")
    assert lines[after + 1 : after + 3] == ["a.txt,HELLO a.txt", "b.txt,HELLO b.txt"]
    assert lines[-1] == "half: 2"


def test_a_script_of_curl_polls_where_the_answers_say_and_scores_data_by_address_and_by_name(
    shipped: Shipped, folder: Path
) -> None:
    lines = run_script(shipped, folder, REST)
    scored = ["hello a.txt", "hello b.txt"]
    stored = ["endpoint: Succeeded", "deployment: Succeeded", "defaults: Succeeded"]
    assert lines == [*stored, "job: Completed", *scored, "job: Completed", *scored, "NotFound"]
