#!/bin/sh
# root.sh BINARY FOLDER SBOM: lays out the image's file system. The server, the libraries that it loads, what it is made of, and the few
# files that the C library and TLS look for; no shell, no package manager. python/tests/test_image.py runs what it makes.
set -eu
binary=$1
root=$2
sbom=$3

install -D -m 0755 "$binary" "$root/usr/local/bin/negbank"
install -D -m 0644 "$sbom" "$root/usr/share/doc/negbank/negbank.cdx.json"
# A static binary loads none.
for library in $(ldd "$binary" 2>/dev/null | grep -o '/[^ ]*'); do
    install -D -m 0755 "$library" "$root$library"
done

mkdir -p "$root/etc/ssl/certs" "$root/tmp"
echo 'nonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin' >"$root/etc/passwd"
echo 'nonroot:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# Whom the server trusts that speaks https to an object store or to a collector of traces.
authorities=/etc/ssl/certs/ca-certificates.crt
if [ -f $authorities ]; then
    install -m 0644 $authorities "$root$authorities"
else
    echo "*** The image trusts no authority, since there is no $authorities here (Debian: ca-certificates): https to S3 or a collector will fail. ***" >&2
fi
# Of the server's user, so that a volume mounted there is too.
install -d -m 0750 -o 65532 -g 65532 "$root/var/lib/negbank"
