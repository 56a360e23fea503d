#!/bin/sh
# A short rebalance on a machine with a GPU and PyTorch 2.11, with nothing built there.
#
#   trainer/gpu.sh FOLDER          after `cargo xtask setup` and `cargo xtask trainer`: packs the trainer, a model, data and
#                                  what is asked of them into FOLDER, some 110 MB
#   FOLDER/run.sh [PYTHON]         on the other machine: runs it with the libtorch of that PYTHON's torch, twice: once waiting
#                                  for spectra, once not
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:?usage: trainer/gpu.sh FOLDER}
mkdir -p "$folder/model"
cd "$folder"
cp "$here/target/release/evenkeel-trainer" .
cp "$here"/fixtures/cache/minilm/* model/
cp "$here"/fixtures/cache/snippets/films-*.jsonl .

# A trainer that only says what it was asked to do.
printf '#!/bin/sh\nprintf %%s "$2"\n' > say
chmod +x say
for spectra in sync async; do
    "$here/target/release/evenkeel" rebalance model --train films-train.jsonl --eval films-test.jsonl --subsample 0.1 \
        --epochs 3 --batch 16 --learning-rate 5e-5 --until-std-drops 5 --spectra "$spectra" --bf16 --device cuda \
        --output "out-$spectra" --trainer ./say > "request-$spectra.json"
done
rm say

cat > run.sh <<'RUN'
#!/bin/sh
# Runs what is packed here on the first GPU; the numbers to look at are printed last.
set -u
cd "$(dirname "$0")"
python=${1:-python3}
lib=$("$python" -c 'import os, torch; print(torch.__version__); print(os.path.join(os.path.dirname(torch.__file__), "lib"))') || exit 2
echo "PyTorch $(echo "$lib" | head -n 1)"
# Ahead of the path that the program was linked with.
LD_LIBRARY_PATH=$(echo "$lib" | tail -n 1)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
worst=0
for spectra in sync async; do
    rm -rf "out-$spectra"
    # EVENKEEL_DEVICE=cpu tries the script itself where there is no GPU.
    request=$(sed "s/\"device\":\"cuda\"/\"device\":\"${EVENKEEL_DEVICE:-cuda}\"/" "request-$spectra.json")
    echo "== --spectra $spectra"
    ./evenkeel-trainer train "$request"
    code=$?
    echo "exit code $code"
    [ "$code" -gt "$worst" ] && worst=$code
    tail -n 1 "out-$spectra/training/log.csv"
done
exit "$worst"
RUN
chmod +x run.sh
echo "$folder: run.sh is to be started on the other machine."
