#!/bin/sh
# udhcpc says by its argument what happened, and by variables what the server gave.
case $1 in
deconfig)
    ip address flush dev "$interface"
    ;;
bound | renew)
    ip address replace "$ip/${mask:-24}" broadcast + dev "$interface"
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface"
        break
    done
    if [ -n "$dns" ]; then
        {
            [ -z "$domain" ] || echo "search $domain"
            for server in $dns; do echo "nameserver $server"; done
        } >/etc/resolv.conf
    fi
    [ -z "$hostname" ] || hostname "$hostname"
    ;;
esac
