# A crash of the kernel while neighbours work. `panic=-1 reboot=t` makes it a triple fault.
. "${0%/*}/check.sh"
note cpus "$cpus"
sleep 3
ok "crash"
echo c >/proc/sysrq-trigger
