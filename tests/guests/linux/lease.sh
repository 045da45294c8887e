#!/bin/sh
# udhcpc says by its argument what happened, and by variables what the server gave.
[ "$1" != bound ] || echo "$ip $mask $dns $hostname" >/tmp/lease
