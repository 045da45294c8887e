# Two guests on the card's network, `one` and `two`, find each other by name and send each other data.
. "${0%/*}/check.sh"
note cpus "$cpus"
case $(hostname) in
one) peer=two ;;
*) peer=one ;;
esac

tries=0
until answer=$(ping -c 1 -W 1 $peer 2>&1) || [ $tries -ge 60 ]; do
    tries=$((tries + 1))
    sleep 0.5
done
answer=$(ping -c 5 -i 0.2 -W 2 $peer.dragonfly 2>&1) && ok "the other answers" || fail "the other answers" "$answer"

# Sends to `one` and is sent as much by it.
transferred() {
    tries=0
    until iperf3 --client one --bytes 8M "$@" >/tmp/iperf 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 30 ] || return 1
        sleep 0.5
    done
}
if [ $peer = two ]; then
    iperf3 --server --one-off >/tmp/iperf 2>&1 && iperf3 --server --one-off >/tmp/iperf 2>&1
else
    transferred && transferred --reverse
fi
[ $? = 0 ] && ok "iperf3" || fail "iperf3" "$(cat /tmp/iperf)"
note "network" "$(grep receiver /tmp/iperf | tail -n 1)"
kernel_messages
# The other may still want an answer.
sleep 2
