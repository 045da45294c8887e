# Two guests with several pairs of queues: `one` has 4 vCPUs and 8 pairs, `two` has 2 of each; their disks have a queue for
# each vCPU. All queues have work, and what is sent is what comes, whatever the card and the kernel leave to each other. At
# 10.0.2.2, at the port that the word `df.port` says, the host sends back what it is sent, and has an iperf3 at that of `df.iperf`.
. "${0%/*}/check.sh"
note cpus "$cpus"
case $(hostname) in
one) peer=two pairs=8 ;;
*) peer=one pairs=2 ;;
esac
for word in $(cat /proc/cmdline); do
    case $word in
    df.port=*) port=${word#*=} ;;
    df.iperf=*) iperf=${word#*=} ;;
    esac
done

# What the other one fetches: noise, and files that say how far this one has come.
mkdir /tmp/served
head -c 4194304 /dev/urandom >/tmp/served/noise
sha256sum </tmp/served/noise >/tmp/served/sum
busybox httpd -p 80 -h /tmp/served
fetched() {
    tries=0
    until wget -q -O "/tmp/$1" "http://$peer/$1" || [ $tries -ge 200 ]; do
        tries=$((tries + 1))
        sleep 0.5
    done
    cat "/tmp/$1"
}
sum=$(fetched sum)

# An error when there are as many already.
ethtool -L eth0 combined $pairs 2>/dev/null
answer=$(ethtool -l eth0 | awk '/^Combined/ { now = $2 } END { print now }')
[ "$answer" = $pairs ] && ok "pairs of queues" || fail "pairs of queues" "there are $answer"

# Numbers of queues, of those from 0 on, that have nothing in the file: a line for each queue, its name and a count.
idle() {
    queue=0
    while [ $queue -lt "$2" ]; do
        grep -qE "^$1$queue [1-9]" /tmp/counts || echo "$queue"
        queue=$((queue + 1))
    done
}
packets() { ethtool -S eth0 | sed -n 's/^ *\([rt]x\)_queue_\([0-9]*\)_packets: /\1\2 /p' >/tmp/counts; }
# Interrupts of all CPUs by the queue's name, for a device of the PCI bus.
interrupts() {
    awk -v device="$(basename "$(readlink -f "$1")")" '$NF ~ "^" device "-" {
        for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i
        print substr($NF, length(device) + 2), sum + 0
        sum = 0
    }' /proc/interrupts >/tmp/counts
}

# Many flows from each CPU. Nobody listens, and nobody needs to.
address=$(getent ahostsv4 $peer | awk '{ print $1; exit }')
cpu=0
while [ $cpu -lt "$cpus" ]; do
    taskset -c $cpu perl "${0%/*}/flows.pl" "$address" 96 10 || fail "each pair sends" "flows of CPU $cpu"
    cpu=$((cpu + 1))
done
echo yes >/tmp/served/sent
fetched sent >/dev/null
packets
none=$(idle tx $pairs)
[ -z "$none" ] && ok "each pair sends" || fail "each pair sends" "not" $none
# Frames may wait for a CPU still when the word is here that they were sent.
patiently() {
    tries=0
    until "$@" || [ $tries -ge 20 ]; do
        tries=$((tries + 1))
        sleep 0.5
    done
}
all_received() {
    packets
    none=$(idle rx $pairs)
    [ -z "$none" ]
}
patiently all_received
[ -z "$none" ] && ok "each pair receives" || fail "each pair receives" "not" $none
interrupts /sys/class/net/eth0/device
none=$(idle input. $pairs)
[ -z "$none" ] && ok "each pair interrupts" || fail "each pair interrupts" "not $none of $(cat /tmp/counts)"

# Half of the pairs receive all.
ethtool -X eth0 equal $((pairs / 2)) 2>/tmp/steering
packets
mv /tmp/counts /tmp/before
perl "${0%/*}/flows.pl" "$address" 96 10
echo yes >/tmp/served/again
fetched again >/dev/null
wanted=$(seq -s " " 0 $((pairs / 2 - 1)))
steered() {
    packets
    used=$(awk 'NR == FNR { before[$1] = $2; next }
        /^rx/ && $2 > before[$1] { printf "%s%s", separator, substr($1, 3); separator = " " }' /tmp/before /tmp/counts)
    [ "$used" = "$wanted" ]
}
patiently steered
[ "$used" = "$wanted" ] && ok "pairs receive what is steered to them" ||
    fail "pairs receive what is steered to them" "$used of $pairs; $(cat /tmp/steering)"
ethtool -X eth0 default

answer=$(fio --name=verify --filename=/dev/vdb --size=4m --offset_increment=4m --numjobs="$cpus" --cpus_allowed="0-$((cpus - 1))" \
    --cpus_allowed_policy=split --rw=randwrite --bsrange=4k-64k --blockalign=4k --ioengine=libaio --iodepth=8 --direct=1 \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed=1 --output=/tmp/fio 2>&1) &&
    ok "a job for each CPU" || fail "a job for each CPU" "$answer $(cat /tmp/fio)"
interrupts /sys/block/vdb/device
none=$(idle req. "$cpus")
[ -z "$none" ] && ok "each queue of the disk interrupts" || fail "each queue of the disk interrupts" "not $none of $(cat /tmp/counts)"

# All that is left to the card and all that can be kept from it, one after the other and at once.
inside=
outside=
for off in "" "tso off" "tso off gso off" "gro off" "rx-gro-hw off" "tx off" "tx off sg off gso off gro off rx-gro-hw off"; do
    [ -z "$off" ] || answer=$(ethtool -K eth0 $off 2>&1) || inside="$inside [$off] $answer;"
    got=$(wget -q -O - "http://$peer/noise" | sha256sum)
    [ "$got" = "$sum" ] || inside="$inside [$off] $got;"
    answer=$(perl "${0%/*}/echo.pl" 10.0.2.2 "$port" /tmp/served/noise 2>&1) || outside="$outside [$off] $answer;"
    ethtool -K eth0 tx on sg on tso on gso on gro on rx-gro-hw on >/dev/null
done
[ -z "$inside" ] && ok "transfers between guests" || fail "transfers between guests" "$inside"
[ -z "$outside" ] && ok "transfers through the uplink" || fail "transfers through the uplink" "$outside"

answer=$(ping -c 5 -i 0.2 -W 5 10.0.2.2 2>&1) && ok "ping through the uplink" || fail "ping through the uplink" "$answer"
# The server has one client at a time.
measured() {
    tries=0
    until iperf3 --client 10.0.2.2 --port "$iperf" --bytes 8M "$@" >/tmp/iperf 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || return 1
        sleep 0.5
    done
    note "iperf3 through the uplink $*" "$(grep receiver /tmp/iperf)"
}
measured && measured --reverse && ok "iperf3 through the uplink" || fail "iperf3 through the uplink" "$(cat /tmp/iperf)"

# With more vCPUs than the host has CPUs, timers are late, and the kernel says so: its messages are for other stages to judge.
echo yes >/tmp/served/done
fetched "done" >/dev/null
# The other one looks twice a second.
sleep 2
