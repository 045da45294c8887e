# Forks, pipes and all CPUs at work; what they compute is known.
fail() { echo "[linux] note $1"; exit 1; }

count=0
while [ $count -lt 200 ]; do
    /bin/true || fail "fork $count failed"
    count=$((count + 1))
done

sum=$(seq 1 5000 | sort -r | sort -n | md5sum)
[ "$sum" = "$(seq 1 5000 | md5sum)" ] || fail "a sort through pipes gave $sum"

for cpu in $(seq 0 $(($(nproc) - 1))); do
    { [ "$(taskset -c "$cpu" sh -c 's=0; n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); s=$((s + n)); done; echo $s')" = 200010000 ] ||
        echo "CPU $cpu computed something else" >>/tmp/wrong; } &
done
wait
[ ! -e /tmp/wrong ] || fail "$(cat /tmp/wrong)"
