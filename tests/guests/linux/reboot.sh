# Asks for a reboot; the machine file's `on_reboot` says what comes then.
reboot -f
