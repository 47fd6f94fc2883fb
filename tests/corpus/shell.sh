# Real errors of real commands: first the true name of the error, then the command. $N differs from time to time.
no_directory          ls /nowhere/$N/data
no_file               cat /tmp/missing-$N.csv
command_not_found     backup_tool_$N --all
unbound_variable      set -u; echo $NOT_THERE
division              echo $((1 / 0))
syntax                eval 'if then'
permission            head -c 1 /proc/1/mem; chmod 7 /proc/$$/stat
refused               curl -sS http://127.0.0.1:1/feed/$N
no_host               curl -sS http://host-$N.invalid/
no_database           psql -h 127.0.0.1 -p 1 -U u$N shop
no_archive            tar xf /tmp/dump-$N.tar
progress_then_failure echo "read $N rows at $(date +%T)" >&2; cp /tmp/none-$N /tmp/none2
perl_died             perl -e 'die "order $ARGV[0] failed\n"' $N
no_space              printf %s "$N" > /dev/full
unknown_option        ls --colour-of-$N
numbered_shop         perl -e 'die "shop$ARGV[0] failed\n"' $N
no_relative_file      wc -l data/in/$N.csv
no_blob               perl -MDigest::MD5=md5_hex -e '($id = md5_hex($ARGV[0])) =~ tr/0-9/a-fa-d/; die "blob $id is missing\n"' $N
no_document           perl -MDigest::MD5=md5_base64 -e 'die "no document with id " . md5_base64($ARGV[0]) . "\n"' $N
