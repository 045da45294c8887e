# A boot that is well: on Dragonfly, and directly on an emulator to learn what the kernel says there.
. "${0%/*}/check.sh"
note cpus "$cpus"
read -r uptime _ </proc/uptime
note uptime "$uptime"
kernel_messages
