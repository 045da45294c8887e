# A boot that is well, and then what the host asks for: another one, or the end.
. "${0%/*}/check.sh"
note cpus "$cpus"
clock_source
kernel_messages
echo "[check] ask"
read -r answer
[ "$answer" = reboot ] && reboot -f
[ "$answer" = off ]
