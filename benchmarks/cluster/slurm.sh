#!/bin/bash
# A real Slurm on this machine, and a batch that meets what happens on a cluster: an array of 8 tasks over 200 images, of which one is killed,
# one reaches its time limit and one is requeued. At the end every image must have exactly one set, and the status must have added up all along.
# Then two tasks follow the objects of four stacks, and one is requeued in the middle of a stack: every stack must have one set with all its frames.
#
#   apt-get install slurm-wlm munge      (Debian)
#   benchmarks/cluster/slurm.sh [PYTHON] (as root; about nine minutes, nearly all of them waiting)
#
# The segmenter is a toy that sleeps for three seconds an image, so that 8 tasks fit on two cores.
set -eu
repository=$(cd "$(dirname "$0")/../.." && pwd)
python=${1:-$repository/.venv/bin/python}
work=$(mktemp -d /tmp/segduo-slurm.XXXXXX)
host=$(hostname -s)
export SLURM_CONF=$work/slurm.conf
segduo() { "$python" -m segment_duo.cli.main "$@"; }

mkdir -p "$work"/{munge,state,spool,images,packages,home}
chmod 755 "$work"
dd if=/dev/urandom of="$work/munge/key" bs=128 count=1 2>/dev/null
chmod 700 "$work/munge"; chmod 600 "$work/munge/key"
cat > "$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=3600
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=60 State=UP
CONF

started=()
stop() {
    scancel --user="$(id -un)" 2>/dev/null || true
    sleep 2
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    echo "left behind for a look: $work"
}
trap stop EXIT
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge.socket" --pid-file="$work/munge/pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed" & started+=($!)
sleep 1
slurmctld -D 2>"$work/slurmctld.err" & started+=($!)
slurmd -D 2>"$work/slurmd.err" & started+=($!)
for _ in $(seq 60); do sinfo -h -o %T 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo

cd "$work"
export SEGDUO_HOME=$work/home SEGDUO_MODEL=sleepy PYTHONPATH=$work/packages:$repository OMP_NUM_THREADS=1
"$python" - <<'PY'
from pathlib import Path
import numpy as np
from PIL import Image
from tests.plug_in_packages import install

install(Path("packages"), "sleepy", '''
import time
from segment_duo.segmenters.base import AutomaticRun, Capability, Family, Segmenter, SegmenterInfo, fingerprint
INFO = SegmenterInfo(id="sleepy", sha256=fingerprint("sleepy", "1"), capabilities=frozenset({Capability.AUTOMATIC}), licence="MIT")
class Sleepy(Segmenter):
    info = INFO
    def automatic(self, pixels, parameters, **_):
        time.sleep(3)
        return AutomaticRun.of_labels((pixels[..., 0] > 100).astype("int32"))
FAMILY = Family(load=lambda request: Sleepy(), info=INFO)
''')
for number in range(200):
    pixels = np.full((12, 16), 10, np.uint8)
    pixels[4:8, 4:10] = 200
    pixels[0, :8] = [int(bit) * 50 for bit in f"{number:08b}"]
    Image.fromarray(pixels).save(f"images/{number:03}.png")
import tifffile
Path("stacks").mkdir()
for number in range(4):
    frames = np.full((12, 12, 16), 10, np.uint8)
    frames[:, 4:8, 4:10] = 200
    frames[:, 0, 0] = np.arange(12) + 12 * number
    tifffile.imwrite(f"stacks/{number}.tif", frames)
PY

job=$(segduo batch submit --slurm --manifest run --array 8 --time 10 --warning 20 -- auto images)
killed=0
for round in $(seq 60); do
    sleep 5
    # Before the first task has begun there is no manifest.
    segduo batch status run --json > status.json 2>/dev/null || { echo "round $round: no manifest yet"; continue; }
    "$python" - "$round" <<'PY'
import json, sys
now = json.load(open("status.json"))
total = now["done"] + now["skipped"] + now["failed"] + now["left"]
print(f"round {sys.argv[1]}: {now['done']} of {now['given']} done, {now['failed']} failed, {now['states']}, slurm {now['slurm']}", flush=True)
assert total == now["given"] == 200 and not now["repeated"], now
PY
    running=$(squeue -h -t RUNNING -j "$job" | wc -l)
    if [ "$killed" -eq 0 ] && [ "$running" -eq 8 ] && [ "$("$python" -c 'import json; print(json.load(open("status.json"))["done"])')" -ge 8 ]; then
        killed=1
        echo "--- task 3 is killed, task 5 requeued, the time limit of task 7 is set to a minute"
        scancel --signal=KILL --full "${job}_3"
        scontrol requeue "${job}_5"
        scontrol update JobId="${job}_7" TimeLimit=1
    fi
    # Slurm may send the warning a minute early, so that under a limit of one minute a run does one image. Once it has, the limit is raised again.
    if [ "$killed" -eq 1 ] && squeue -h -t PENDING -j "${job}_7" 2>/dev/null | grep -q .; then
        killed=2
        scontrol update JobId="${job}_7" TimeLimit=10
    fi
    if [ "$killed" -ge 1 ] && [ -z "$(squeue -h -j "$job" -t PENDING,RUNNING,COMPLETING,REQUEUED)" ]; then
        break
    fi
done
echo "--- the array is over; what was killed is submitted again: sbatch --array=3"
again=$(sbatch --parsable --array=3 run/job-1.sbatch)
echo "$again" >> run/slurm-jobs
while [ -n "$(squeue -h -j "$again" -t PENDING,RUNNING,COMPLETING)" ]; do sleep 3; done
segduo batch status run
grep -h -o '"restarts":"[0-9]*"' run/*.ndjson | sort | uniq -c
grep -h -o '"ended":"[a-z]*"' run/*.ndjson | sort | uniq -c
"$python" - <<'PY'
import json, pathlib, subprocess, sys
sets = sorted(file.name for file in pathlib.Path("images/masks").glob("*.pkl"))
now = json.loads(subprocess.run([sys.executable, "-m", "segment_duo.cli.main", "batch", "status", "run", "--json"], capture_output=True, text=True, check=True).stdout)
assert sets == [f"{number:03}.pkl" for number in range(200)], (len(sets), sets[:5])
assert (now["done"], now["failed"], now["left"], now["repeated"]) == (200, 0, 0, 0), now
print("every image exactly once: 200 sets, all of version 0")
PY

job=$(segduo batch submit --slurm --manifest follow --array 2 --time 10 --warning 20 -- track stacks/0.tif stacks/1.tif stacks/2.tif stacks/3.tif --link --no-tables)
requeued=0
for round in $(seq 100); do
    sleep 3
    if [ "$requeued" -eq 0 ] && [ -n "$(find stacks/masks -name '.segduo-*.part' -size +3k 2>/dev/null)" ]; then
        requeued=1
        number=$(grep -l '"begun"' follow/*.ndjson | head -1 | sed 's/.*shard-\([12]\)-of.*/\1/')
        echo "--- task $number, which is in the middle of a stack, is requeued"
        scontrol requeue "${job}_$number"
    fi
    [ -z "$(squeue -h -j "$job" -t PENDING,RUNNING,COMPLETING,REQUEUED)" ] && break
done
segduo batch status follow
grep -h -o '"ended":"[a-z]*"' follow/*.ndjson | sort | uniq -c
"$python" - <<'PY'
import json, subprocess, sys
from pathlib import Path
from segment_duo.masks.formats.sequence import SequenceSet
sets = sorted(Path("stacks/masks").iterdir())
assert [file.name for file in sets] == ["0.pkl", "1.pkl", "2.pkl", "3.pkl"], sets
for file in sets:
    with SequenceSet.open(file) as found:
        assert found.finished and [chunk.frame for chunk in found.chunks] == list(range(12)), file
now = json.loads(subprocess.run([sys.executable, "-m", "segment_duo.cli.main", "batch", "status", "follow", "--json"], capture_output=True, text=True, check=True).stdout)
assert (now["done"], now["failed"], now["left"], now["repeated"]) == (4, 0, 0, 0), now
assert now["states"].get("stopped") == 1, now["states"]
print("every stack exactly once: 4 sets of 12 frames, one task in two runs")
PY
