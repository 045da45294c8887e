# Sleeps of known length; the host compares with its own time. The clock must not go back on any CPU.
echo "[linux] note clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
last=0
for cpu in $(seq 0 $(($(nproc) - 1))) $(seq 0 $(($(nproc) - 1))); do
    now=$(taskset -c "$cpu" cut -d ' ' -f 1 /proc/uptime | tr -d .)
    [ "$now" -ge "$last" ] || { echo "[linux] note CPU $cpu says $now after $last"; exit 1; }
    last=$now
done
echo "[linux] note slept 0"
sleep 5
echo "[linux] note slept 5"
