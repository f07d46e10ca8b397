#!/bin/sh
# Installs the peers, each into an environment of its own under the folder given.
# torch goes first and alone where a peer needs it: resolved together, pip may pick a larger build.
set -eu
folder=${1:?usage: setup.sh FOLDER}
python=${PYTHON:-python3.11}
mkdir -p "$folder"
"$python" -m venv "$folder/dpmm"
"$folder/dpmm/bin/pip" install --quiet dpmm==0.1.9
"$python" -m venv "$folder/mbi"
"$folder/mbi/bin/pip" install --quiet mbi==2.0.0 pandas
"$python" -m venv "$folder/snsynth"
"$folder/snsynth/bin/pip" install --quiet torch==2.13.0
"$folder/snsynth/bin/pip" install --quiet smartnoise-synth==1.0.8 packaging
"$python" -m venv "$folder/sklearn"
"$folder/sklearn/bin/pip" install --quiet scikit-learn==1.7.2
"$python" -m venv "$folder/faiss"
"$folder/faiss/bin/pip" install --quiet faiss-cpu==1.15.1
"$python" -m venv "$folder/sdmetrics"
"$folder/sdmetrics/bin/pip" install --quiet sdmetrics==0.32.0
"$python" -m venv "$folder/anonymeter"
"$folder/anonymeter/bin/pip" install --quiet anonymeter==1.1.0
"$python" -m venv "$folder/mostlyai"
"$folder/mostlyai/bin/pip" install --quiet torch==2.13.0
"$folder/mostlyai/bin/pip" install --quiet mostlyai-qa==1.10.11
