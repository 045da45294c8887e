# Two guests on the card's network, `one` and `two`, find each other by name and send each other data, while the host
# changes the rules that `two` is under.
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

# `one`, whose CID is 3, sends back over a virtio socket what `two` sends.
echoed() {
    head -c 4M /dev/urandom >/tmp/sent
    tries=0
    until socat -t 30 - VSOCK-CONNECT:3:7000 </tmp/sent >/tmp/echoed 2>/tmp/socat; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || return 1
        sleep 0.5
    done
    cmp /tmp/sent /tmp/echoed >>/tmp/socat 2>&1 || return 1
    # Neither where nobody listens, nor with the host or a guest that there is not.
    for place in 3:7001 2:7000 5:7000; do
        socat -t 1 - VSOCK-CONNECT:$place </dev/null 2>>/tmp/socat && return 1
    done
    return 0
}
if [ $peer = two ]; then
    timeout 120 socat VSOCK-LISTEN:7000 EXEC:cat 2>/tmp/socat
else
    echoed
fi
[ $? = 0 ] && ok "sockets" || fail "sockets" "$(cat /tmp/socat)"

# The device of the port with this name.
port() {
    name=$(grep -lx "$1" /sys/class/virtio-ports/*/name) && echo "/dev/$(basename "${name%/name}")"
}

# Both have the port `talk`, and send each other more than there is room for between them.
talked() {
    exec 3<>"$(port talk)" || return 1
    # It waits until the other has opened its port; before, there is nothing to read, and no end either.
    echo hello >&3 && read -r answer <&3 && [ "$answer" = hello ] || return 1
    if [ $peer = two ]; then
        head -c 256K <&3 >/tmp/heard && cat /tmp/heard >&3 && read -r answer <&3 && [ "$answer" = bye ]
    else
        head -c 256K /dev/urandom >/tmp/said
        cat /tmp/said >&3 && head -c 256K <&3 >/tmp/heard && cmp /tmp/said /tmp/heard && echo bye >&3
    fi
}
talked 2>/tmp/talk && ok "ports" || fail "ports" "$(cat /tmp/talk) $(ls /dev/vport* /sys/class/virtio-ports 2>&1)"

# The port `screen` of `two` leads to the console of `one`.
shown() {
    if [ $peer = two ]; then
        exec 4<>/dev/hvc0 && echo login: >&4 && read -r answer <&4 && [ "$answer" = root ]
    else
        exec 4<>"$(port screen)" && read -r answer <&4 && [ "$answer" = "$(printf 'login:\r')" ] && echo root >&4
    fi
}
shown 2>/tmp/shown && ok "console" || fail "console" "$answer $(cat /tmp/shown)"
kernel_messages
# Behind the kernel's messages: two guests and the card that are never idle make timers late on a host that has other work, and the
# kernel says so.
perl "${0%/*}/rules.pl" 2>/tmp/rules && ok "a change of rules under traffic" || fail "a change of rules under traffic" "$(cat /tmp/rules)"
# The other may still want an answer.
sleep 2
