# What the kernel said while it booted, for the host to judge.
echo "[linux] note cpus $(nproc)"
dmesg | while read -r line; do echo "[dmesg] $line"; done
