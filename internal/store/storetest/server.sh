# $1: PostgreSQL's programs; $2: an empty folder, removed at the end.
# Says "ready", then lives until its standard input ends.
exec 2>&1
trap 'rm -rf "$2"' EXIT
"$1/initdb" --no-sync --auth=trust --username=keyroll --encoding=UTF8 --locale=C.UTF-8 -D "$2/data" >"$2/log" || { cat "$2/log"; exit 1; }
cat >>"$2/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$2'
max_connections = 200
shared_buffers = 64MB
fsync = off
full_page_writes = off
log_min_messages = fatal
CONF
"$1/postgres" -D "$2/data" >"$2/log" </dev/null &
trap 'kill -QUIT $!; wait $!; rm -rf "$2"' EXIT
until "$1/pg_isready" --quiet --host="$2" --username=keyroll --dbname=postgres; do
	kill -0 $! || { cat "$2/log"; exit 1; }
	sleep 0.02
done
echo ready
exec >/dev/null 2>&1
while read -r _; do :; done
