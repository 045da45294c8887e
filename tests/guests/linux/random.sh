# The kernel has random numbers of the card's device, and they are no constant ones.
random_numbers() {
    source=$(cat /sys/class/misc/hw_random/rng_current 2>&1)
    case $source in
    virtio_rng*) ;;
    *)
        fail "random numbers" "they are of $source"
        return
        ;;
    esac
    first=$(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | md5sum)
    second=$(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | md5sum)
    bytes=$(dd if=/dev/hwrng of=/tmp/random bs=64 count=64 iflag=fullblock 2>/dev/null && wc -c </tmp/random)
    zeroes=$(tr -dc '\0' </tmp/random | wc -c)
    [ "$bytes" = 4096 ] && [ "$first" != "$second" ] && [ "$zeroes" -lt 64 ] && ok "random numbers" ||
        fail "random numbers" "$first, $second, $zeroes of $bytes are zero"
}
