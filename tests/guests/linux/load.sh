# Debian on a disk and a network of the card's, at work for the seconds that the word `df.seconds` of the command line says,
# while the host does something to the card: the rules that the guest is under, and the pair of queues by which it receives, are
# changed before, and are to stay so, as is the link when it is down.
. "${0%/*}/check.sh"
note cpus "$cpus"
time_stamp

for word in $(cat /proc/cmdline); do
    case $word in
    df.seconds=*) seconds=${word#*=} ;;
    df.iperf=*) iperf=${word#*=} ;;
    esac
done
pairs=$(ethtool -l eth0 | awk '/^Combined/ { now = $2 } END { print now }')
[ "$pairs" = 2 ] || ethtool -L eth0 combined 2
ethtool -X eth0 weight 0 1 || note steering "cannot be set"

# An order is lost with a card that dies of it, so it may take more than one: asked ORDER ANSWER.
asked() {
    tries=0
    until [ $tries -ge 3 ]; do
        tries=$((tries + 1))
        echo "[check] ask $1"
        case $(perl -e '$SIG{ALRM} = sub { exit }; alarm 8; print scalar <STDIN>') in
        *$2*) break ;;
        esac
    done
}
# 10.0.2.4 is the card.
ping -c 1 -W 5 10.0.2.4 >/dev/null 2>&1 || note rules "the card does not answer at first"
asked rules force
! ping -c 1 -W 1 10.0.2.4 >/dev/null 2>&1 || note rules "they have not changed"

read -r start _ </proc/uptime
passed() {
    read -r uptime _ </proc/uptime
    echo $((${uptime%.*} - ${start%.*}))
}

# The carrier that the kernel sees is this one, within two seconds.
carrier() {
    tries=0
    until [ "$(cat /sys/class/net/eth0/carrier)" = "$1" ]; do
        tries=$((tries + 1))
        [ $tries -lt 20 ] || return 1
        sleep 0.1
    done
}
carrier 1 || note carrier "it is down at first"

# Connections that carry data all the time, one each way, to an iperf3 of the host's at 10.0.2.2: the rules let the guest open them, and
# no card but the first has seen that.
timeout $((seconds + 60)) iperf3 --client 10.0.2.2 --port "$iperf" --bidir --bitrate 500K --time "$seconds" >/tmp/lasting 2>&1 &
lasting=$!

round=0
bad=
while [ "$(passed)" -lt "$seconds" ]; do
    round=$((round + 1))
    note round "$round"
    ping -c 1 -W 1 10.0.2.2 >/dev/null 2>&1 &
    answer=$(verified /fio.dat) || bad="$bad $round: $answer $(cat /tmp/fio)"
    rm -f /fio.dat
done
[ -z "$bad" ] && ok "each round is whole" || fail "each round is whole" "$bad"
wait $lasting && ok "connections outlive the card" || fail "connections outlive the card" "$(tail -n 20 /tmp/lasting)"
note "connections" "$(grep receiver /tmp/lasting)"
answer=$(ping -c 3 -W 5 10.0.2.2 2>&1) && ok "the gateway answers in the end" || fail "the gateway answers in the end" "$answer"
answer=$(ping -c 3 -i 0.2 -W 1 10.0.2.4 2>&1) && fail "rules stay as they were changed" "$answer" ||
    ok "rules stay as they were changed"

received() { ethtool -S eth0 | awk -v name="rx_queue_$1_packets:" '$1 == name { print $2 }'; }
first=$(received 0) second=$(received 1)
ping -c 10 -i 0.2 -W 5 10.0.2.2 >/dev/null 2>&1
first=$(($(received 0) - first)) second=$(($(received 1) - second))
# What is not IP comes to the first.
[ "$second" -ge 10 ] && [ "$first" -le 5 ] && ok "a pair receives what is steered to it" ||
    fail "a pair receives what is steered to it" "$second of 10, and $first to the other"

# All that is asked of it meanwhile waits, and a link that is down stays so. The next card asks the driver to announce itself, and tells
# of that having been done, each by a change to the configuration space.
changes() {
    awk -v name="$(basename "$(readlink -f /sys/class/net/eth0/device)")-config" \
        '$NF == name { for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }' /proc/interrupts
}
asked "link net down" "link of net is down"
carrier 0 || note carrier "it stays up"
sleep 0.5
before=$(changes)
echo "[check] ask hang"
verified /fio.dat >/tmp/answer &
verifier=$!
tries=0
until [ "$(changes)" -ge $((before + 2)) ] || [ $tries -ge 600 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
[ $tries -lt 600 ] && ok "the next card has the driver announce itself" ||
    fail "the next card has the driver announce itself" "$(changes) changes, $before before"
carrier 0 && ! ping -c 1 -W 1 10.0.2.2 >/dev/null 2>&1 && ok "a link that is down stays so" ||
    fail "a link that is down stays so" "$(cat /sys/class/net/eth0/operstate)"
asked "link net up" "link of net is up"
carrier 1 && ok "a link goes up" || fail "a link goes up" "$(cat /sys/class/net/eth0/operstate)"
wait $verifier && ping -c 3 -W 5 10.0.2.2 >/tmp/ping 2>&1 && ok "a card that hangs is replaced" ||
    fail "a card that hangs is replaced" "$(cat /tmp/answer /tmp/fio /tmp/ping)"

kernel_messages
