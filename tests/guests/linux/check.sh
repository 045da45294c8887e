# What the other scripts share. Each check says what became of it by one line that the host reads:
#   [check] ok NAME            [check] fail NAME: WHY            [check] note NAME: TEXT
#   [check] time SECONDS       the guest's clock, for the host to compare with its own
#   [check] ask                the host types a line in answer
#   [check] ask move           each vCPU goes on on the next CPU of the hypervisor, if that has several
cpus=$(nproc)

ok() {
    echo "[check] ok $1"
    time_stamp
}
fail() { echo "[check] fail $1: $2"; }
note() { echo "[check] note $1: $2"; }

# Hundredths of a second since the guest's start.
now() {
    read -r uptime _ </proc/uptime
    echo "${uptime%.*}${uptime#*.}"
}

# There are many, as one may be late on its way: the host takes the best of the first ones and of the last ones.
time_stamp() {
    read -r uptime _ </proc/uptime
    echo "[check] time $uptime"
}

# What of the kernel's messages tells of trouble, with their levels. The host knows which of them mean nothing.
kernel_messages() {
    dmesg -r | grep -iE '^<[0-4]>|warn|oops|bug|unstable|lockup|stall|call trace' | sed 's/^/[dmesg] /'
    ok "kernel messages"
}

# The source of time that the kernel chose and has not given up.
clock_source() {
    source=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
    case $source in
    tsc | kvm-clock) ok "clock source" ;;
    *) fail "clock source" "it is $source" ;;
    esac
}

# Random writes of several sizes, several under way at once, each read again and compared: verified FILE [SIZE].
verified() {
    fio --name=verify --filename="$1" --size="${2:-8m}" --rw=randwrite --bsrange=4k-64k --blockalign=4k --ioengine=libaio \
        --iodepth=8 --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed=1 --output=/tmp/fio 2>&1
}
