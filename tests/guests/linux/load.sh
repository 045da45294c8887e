# Debian on a disk and a network of the card's, at work for the seconds that the word `df.seconds` of the command line says,
# while the host does something to the card.
. "${0%/*}/check.sh"
note cpus "$cpus"
time_stamp

for word in $(cat /proc/cmdline); do
    case $word in df.seconds=*) seconds=${word#*=} ;; esac
done
read -r start _ </proc/uptime
passed() {
    read -r uptime _ </proc/uptime
    echo $((${uptime%.*} - ${start%.*}))
}

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
answer=$(ping -c 3 -W 5 10.0.2.2 2>&1) && ok "the gateway answers in the end" || fail "the gateway answers in the end" "$answer"

kernel_messages
