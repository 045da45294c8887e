# A guest that tries what security groups, its own identity and limits allow.
. "${0%/*}/check.sh"
note cpus "$cpus"
perl "${0%/*}/caller.pl" 2>/tmp/caller || fail "rules" "$(cat /tmp/caller)"
kernel_messages
