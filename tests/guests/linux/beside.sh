# Debian on a disk and a network of the card's, beside a guest whose driver lies to the card for the first minute: what is
# written is what is read, the network answers, and neither takes much longer than when the other has ended.
. "${0%/*}/check.sh"
note cpus "$cpus"

# Rounds, three at least, until so many seconds after the start; gives how long one took, in hundredths of a second.
rounds() {
    begin=$(now)
    round=0
    until [ $round -ge 3 ] && [ "$(now)" -ge "$(($1 * 100))" ]; do
        round=$((round + 1))
        answer=$(verified /fio.dat) || echo "round $round: $answer $(cat /tmp/fio)" >>/tmp/bad
        ping -c 4 -i 0.2 -W 5 -q 10.0.2.2 >/tmp/ping 2>&1 || echo "round $round: $(cat /tmp/ping)" >>/tmp/bad
    done
    echo $((($(now) - begin) / round))
}
under_attack=$(rounds 50)
until [ "$(now)" -ge 6800 ]; do sleep 1; done
alone=$(rounds 0)
rm -f /fio.dat
note "hundredths of a second for a round" "$under_attack under attack, $alone alone"
[ ! -e /tmp/bad ] && ok "each round is whole" || fail "each round is whole" "$(cat /tmp/bad)"
[ "$under_attack" -le $((alone * 4)) ] && ok "slowed down within bounds" || fail "slowed down within bounds" "$under_attack, alone $alone"
kernel_messages
