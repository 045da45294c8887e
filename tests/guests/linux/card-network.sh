# Two networks that the card serves, the second in a network namespace of its own, so that what one sends to the other
# goes through the card, whose MTU is 1,400 bytes:
#   df.pairs=N      pairs of queues that each has
#   df.packed=N     1 if their rings are packed
#   df.offloads=N   0 if the first has none, so that the card cuts and sums for it
#   df.rounds=N     transfers more, for the host to disturb
ok() { echo "[check] ok $1"; }
fail() { echo "[check] fail $1: $2"; }

rounds=0
for word in $(cat /proc/cmdline); do
    case $word in
    df.pairs=*) pairs=${word#*=} ;;
    df.packed=*) packed=${word#*=} ;;
    df.offloads=*) offloads=${word#*=} ;;
    df.rounds=*) rounds=${word#*=} ;;
    esac
done
near=10.0.0.1
far=10.0.0.2
long=1372 # bytes of data in a ping whose packet is as long as the MTU

tries=0
until [ -d /sys/class/net/eth1 ] || [ $tries -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
[ -d /sys/class/net/eth1 ] && ok "the devices are found" || fail "the devices are found" "$(ls /sys/class/net)"

# The device's features with these numbers that the driver has taken, 1 or 0 for each.
features() {
    taken=
    for bit in $2; do taken=$taken$(cut -c $((bit + 1)) "/sys/class/net/$1/device/features"); done
    echo "$taken"
}
# VIRTIO_F_RING_PACKED is 34; of networks CSUM is 0, GUEST_CSUM 1, GUEST_TSO4 7, HOST_TSO4 11, MQ 22.
several=$((pairs > 1))
wanted="$packed$several$offloads$offloads$offloads$offloads $packed${several}1111"
taken="$(features eth0 "34 22 0 1 7 11") $(features eth1 "34 22 0 1 7 11")"
[ "$taken" = "$wanted" ] && ok "they are as described" || fail "they are as described" "$taken, not $wanted"

# Names of the devices in the list of interrupts.
names="$(basename "$(readlink /sys/class/net/eth0/device)") $(basename "$(readlink /sys/class/net/eth1/device)")"
unshare -n sleep 3600 &
space=$!
until [ "$(readlink /proc/$space/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
in_far() { nsenter -t $space -n "$@"; }
# The answers to datagrams that nobody wants are to come at any rate.
in_far sh -c "echo 0 >/proc/sys/net/ipv4/icmp_ratelimit"
mtu=$(cat /sys/class/net/eth0/mtu)
ip address add $near/24 dev eth0
ip link set eth0 up
ip link set eth1 netns $space
in_far ip address add $far/24 dev eth1
in_far ip link set eth1 up

# QEMU tells the first driver the MTU. The second knows of none: what it sends too long is lost, and answered, so that
# its kernel divides what comes next.
[ "$mtu" = 1400 ] && ok "the driver learns the MTU" || fail "the driver learns the MTU" "$mtu"
answer=$(in_far ping -q -c 2 -i 0.2 -W 10 $near 2>&1) && ok "short pings" || fail "short pings" "$answer"
too_long() { in_far ping -q -c 1 -W "$1" -s $((long + 1)) $near; }
answer=$(too_long 2 2>&1; too_long 10 2>&1)
case $answer in
*" 0 packets received"*" 1 packets received"*) ok "what is longer than the MTU is answered" ;;
*) fail "what is longer than the MTU is answered" "$answer" ;;
esac
in_far ip link set eth1 mtu 1400
answer=$(in_far ping -q -c 5 -i 0.2 -W 10 -s $long $near 2>&1 && ping -q -c 5 -i 0.2 -W 10 -s $long $far 2>&1) &&
    ok "pings of full length" || fail "pings of full length" "$answer"

# Datagrams for nobody: the other kernel counts those that are whole, and says so to the sender.
counted() { in_far awk '/^Udp: [0-9]/ { print $3, $8 }' /proc/net/snmp; }
answer=$(traceroute -n -m 1 -q 20 -w 5 $far 46 2>&1; traceroute -n -m 1 -q 20 -w 5 $far 1400 2>&1)
[ "$(counted)" = "40 0" ] && [ "$(echo "$answer" | grep -o " ms" | wc -l)" = 40 ] &&
    ok "datagrams" || fail "datagrams" "received and with wrong sums $(counted): $answer"

mkdir /tmp/served
head -c 1048576 /dev/urandom >/tmp/served/noise
echo small >/tmp/served/small
sum=$(md5sum </tmp/served/noise)
httpd -p 80 -h /tmp/served
in_far httpd -p 80 -h /tmp/served
connections=8
# As many transfers at once from the address; how many of them are whole.
whole() (
    from=$1
    shift
    for number in $(seq $connections); do
        "$@" wget -q -T 30 -O - "http://$from/noise" 2>/tmp/wget | md5sum >"/tmp/sum.$number" &
    done
    wait
    cat /tmp/sum.* | grep -cxF "$sum"
)
count=$(whole $near in_far)
[ "$count" = $connections ] && ok "transfers from the first" || fail "transfers from the first" "$count whole, $(cat /tmp/wget)"
count=$(whole $far)
[ "$count" = $connections ] && ok "transfers to the first" || fail "transfers to the first" "$count whole, $(cat /tmp/wget)"

# A device without offloads gets frames as long as the MTU allows, another gets many in one.
read -r packets </sys/class/net/eth0/statistics/rx_packets
read -r bytes </sys/class/net/eth0/statistics/rx_bytes
[ $((bytes / packets <= 1414)) = $((1 - offloads)) ] && ok "frames are cut if need be" ||
    fail "frames are cut if need be" "$bytes bytes in $packets packets"

# Small transfers from each CPU, for flows to each queue.
for cpu in $(seq 0 $(($(nproc) - 1))); do
    for flow in $(seq 8); do
        taskset -c "$cpu" wget -q -T 30 -O /dev/null http://$far/small
    done
done
# Those of the devices' queues that have never interrupted.
idle=
for name in $names; do
    for queue in $(seq 0 $((pairs - 1))); do
        awk -v name="$name-input.$queue" '$NF == name { for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i }
            END { exit sum == 0 }' /proc/interrupts || idle="$idle $name-input.$queue"
    done
done
[ -z "$idle" ] && ok "each queue receives" || fail "each queue receives" "not$idle"

round=0
bad=
while [ $round -lt "$rounds" ]; do
    round=$((round + 1))
    echo "[check] note round: $round"
    [ "$(whole $near in_far)" = $connections ] || bad="$bad $round"
done
[ -z "$bad" ] && ok "each round is whole" || fail "each round is whole" "not these:$bad"
