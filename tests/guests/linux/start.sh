# The first program runs: said on the console and, by asking for a reset at once, in the hypervisor's log, which has the
# time of it. A change of mode waits for the serial port to have written everything.
echo "[bench] init"
stty -echo
echo b >/proc/sysrq-trigger
