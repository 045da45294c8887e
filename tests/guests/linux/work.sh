# Forks, pipes, files, timers and all CPUs at work; what they compute is known.
. "${0%/*}/check.sh"
note cpus "$cpus"
read -r uptime _ </proc/uptime
note uptime "$uptime"
time_stamp

# Interrupts of a kind on each CPU, one number a line.
interrupts() { awk -v kind="$1:" '$1 == kind { for (i = 2; $i ~ /^[0-9]+$/; i++) print $i }' /proc/interrupts; }
total() { interrupts "$1" | awk '{ sum += $1 } END { print sum + 0 }'; }
ticks_before=$(interrupts LOC)

fork_storm() {
    count=0
    while [ $count -lt 100 ]; do
        /bin/true || return 1
        count=$((count + 1))
    done
    [ "$(seq 1 40 | while read -r number; do (echo "$number") | cat; done | awk '{ s += $1 } END { print s }')" = 820 ]
}
fork_storm && ok "forks and pipes" || fail "forks and pipes" "a process failed or said something else"

sum=$(seq 1 5000 | sort -r | sort -n | md5sum)
[ "$sum" = "$(seq 1 5000 | md5sum)" ] && ok "sort" || fail "sort" "through pipes it gave $sum"

dd if=/dev/urandom of=/tmp/first bs=64k count=16 2>/dev/null
cp /tmp/first /tmp/second
same=yes
[ "$(sha256sum </tmp/first)" = "$(sha256sum </tmp/second)" ] || same=no
[ "$(cat /tmp/first /tmp/second | sha256sum)" = "$(cat /tmp/first /tmp/second | gzip -1 | gunzip | sha256sum)" ] || same=no
[ $same = yes ] && ok "files" || fail "files" "a copy differs"
rm /tmp/first /tmp/second

cpu=0
while [ "$cpu" -lt "$cpus" ]; do
    taskset -c "$cpu" sh -c 's=0; n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); s=$((s + n)); done; echo $s' >"/tmp/sum.$cpu" &
    cpu=$((cpu + 1))
    echo "[check] ask move"
done
wait
wrong=
cpu=0
while [ "$cpu" -lt "$cpus" ]; do
    [ "$(cat "/tmp/sum.$cpu")" = 200010000 ] || wrong="CPU $cpu computed $(cat "/tmp/sum.$cpu")"
    cpu=$((cpu + 1))
done
[ -z "$wrong" ] && ok "all CPUs" || fail "all CPUs" "$wrong"

# The hypervisor's machine has two CPUs: of more than two that are busy some must wait. The kernel counts other time by
# ticks, of which it misses many then, so what was stolen is compared with the time that there was.
stolen=$(awk '$1 == "cpu" { print $9 }' /proc/stat)
all=$(($(now) * cpus))
right=$((stolen <= all && (cpus <= 2 || stolen > 0)))
[ $right = 1 ] && ok "stolen time" || fail "stolen time" "$stolen hundredths of $all"

# A clock that goes back when a process changes its CPU is no clock.
back=
last=0
for _ in 1 2 3 4; do
    cpu=0
    while [ "$cpu" -lt "$cpus" ]; do
        moment=$(taskset -c "$cpu" cut -d ' ' -f 1 /proc/uptime | tr -d .)
        echo "[check] ask move"
        [ "$moment" -ge "$last" ] || back="CPU $cpu says $moment after $last"
        last=$moment
        cpu=$((cpu + 1))
    done
done
[ -z "$back" ] && ok "clock across CPUs" || fail "clock across CPUs" "$back"

# The best of some counts, as the host may be busy for a while, and less what starting a program takes.
best_sleep() {
    best=1000000
    for _ in 1 2 3; do
        before=$(now)
        sleep "$1"
        slept=$(($(now) - before))
        [ $slept -lt $best ] && best=$slept
        time_stamp >&2
    done
    echo $best
}
none=$(best_sleep 0)
two=$(best_sleep 2)
# The clock is read in hundredths, so each of the two may be one off.
if [ "$two" -ge 200 ] && [ $((two - none)) -le 203 ]; then
    ok "sleep"
else
    fail "sleep" "two seconds took $two hundredths at best, and none took $none"
fi

# Each CPU's timer has ticked, devices interrupt, and the controllers saw nothing odd.
trouble=
echo "$ticks_before" >/tmp/before
interrupts LOC >/tmp/after
[ "$(paste /tmp/before /tmp/after | awk '$2 > $1' | wc -l)" = "$cpus" ] || trouble="timers: $(echo $ticks_before) then $(echo $(cat /tmp/after))"
[ "$(total 4)" -gt 0 ] || trouble="no interrupt of the serial port"
for kind in ERR MIS SPU; do
    [ "$(total $kind)" = 0 ] || trouble="$kind counts $(total $kind)"
done
[ "$cpus" = 1 ] || [ $(($(total RES) + $(total CAL))) -gt 0 ] || trouble="no interrupts between CPUs"
[ -z "$trouble" ] && ok "interrupts" || fail "interrupts" "$trouble"

clock_source
kernel_messages
