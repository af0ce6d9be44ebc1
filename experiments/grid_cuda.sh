#!/usr/bin/env bash
# The long protocol on one CUDA card, several runs side by side, within a time limit. Run it again to go on.
#   python -m experiments pack --data ../shared/data/ferplus    # once, where the data is: makes runs/study.zip
#   bash experiments/grid_cuda.sh RESULTS [OPTION ...]          # on the machine with the card
# DEVICE, PACKED, MINUTES and JOBS change what is below. More options are those of `python -m experiments protocol`.
set -euo pipefail
exec "${PYTHON:-python3}" -m experiments protocol --runs "$1" --packed "${PACKED:-runs/study.zip}" \
  --minutes "${MINUTES:-9}" --jobs "${JOBS:-6}" --threads 2 \
  --run.device "${DEVICE:-cuda}" --run.batch 64 --run.batch_unlabelled 448 "${@:2}"
