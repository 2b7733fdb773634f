#!/bin/sh
# Makes the keys and signatures beside this file with GnuPG 2.2. Every run makes other keys.
# The secret keys are thrown away. Times: keys 2020-01-01, signatures 2020-06-01 or, "after", 2022-06-01.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
GNUPGHOME=$(mktemp -d); export GNUPGHOME; chmod 700 "$GNUPGHOME"
cd "$HERE"; rm -f ./*.sig ./*.key
H=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
T0='20200101T000000!' T1='20200601T000000!' T2='20220601T000000!'
g() { gpg --batch --yes --quiet --no-tty --pinentry-mode loopback --passphrase '' --trust-model always "$@"; }
ask() { gpg --no-tty --quiet --command-fd 0 --pinentry-mode loopback --passphrase '' "$@" 2>/dev/null; }
fingerprint() { gpg --batch --with-colons --list-keys "$1" | awk -F: '/^fpr/{print $10; exit}'; }
key() { g --faked-system-time "$T0" --quick-generate-key "$1@test" "${3:-ed25519}" sign "$2"; }
publish() { g --faked-system-time "$T1" --export --export-options export-minimal "$1@test" > "$2.key"; }
sign() { name=$1; time=$2; shift 2; g --faked-system-time "$time" "$@" --sign -o "$name.sig" < body.json; }
body() { printf '%s' "$2" | g --faked-system-time "$T1" -u plain@test --sign -o "body-$1.sig"; }
D='"image":{"docker-manifest-digest":"sha256:'$H'"}'
T='"type":"atomic container signature"'
I='"identity":{"docker-reference":"quay.io/r/release:4.16.1-x86_64"}'
printf '%s' '{"critical":{'"$D,$T,$I"'},"optional":{"creator":"test"}}' > body.json

key plain never
sign good "$T1" -u plain@test
sign uncompressed "$T1" -u plain@test --compress-algo none
sign zlib "$T1" -u plain@test --compress-algo zlib
sign sha512 "$T1" -u plain@test --digest-algo SHA512
sign sha1 "$T1" -u plain@test --digest-algo SHA1 --allow-weak-digest-algos
sign sha224 "$T1" -u plain@test --digest-algo SHA224
sign expiring "$T1" -u plain@test --default-sig-expire 30d
sign text "$T1" -u plain@test --textmode
sign armored "$T1" -u plain@test --armor
g --faked-system-time "$T1" -u plain@test --clearsign -o clear.sig < body.json
g --faked-system-time "$T1" -u plain@test --detach-sign -o detached.sig < body.json
g --store -o unsigned.sig < body.json
body other-digest "$(printf '%s' '{"critical":{'"$D,$T,$I"'},"optional":{}}' | sed 's/sha256:a/sha256:b/')"
body other-type '{"critical":{'"$D"',"type":"cosign container image signature",'"$I"'},"optional":{}}'
body no-identity '{"critical":{'"$D,$T"',"identity":{"docker-reference":""}},"optional":{}}'
body critical-member '{"critical":{'"$D,$T,$I"',"more":1},"optional":{}}'
body twice '{"critical":{'"$D,$D,$T,$I"'},"optional":{}}'
body sha512-digest '{"critical":{"image":{"docker-manifest-digest":"sha512:'$H$H'"},'"$T,$I"'},"optional":{}}'
body no-json 'hello'
body no-optional '{"critical":{'"$D,$T,$I"'}}'
head -c 4000000 /dev/zero | g --faked-system-time "$T1" -u plain@test --compress-algo zip -z 9 --sign -o bomb.sig
publish plain plain

key other never
sign two "$T1" -u plain@test -u other@test
sign other "$T1" -u other@test
publish other other

key rsa never rsa3072
sign rsa "$T1" -u rsa@test
publish rsa rsa

g --faked-system-time "$T0" --quick-generate-key sub@test ed25519 cert never
F=$(fingerprint sub@test)
g --faked-system-time "$T0" --quick-add-key "$F" ed25519 sign never
sign sub "$T1" -u sub@test
sign sub-after "$T2" -u sub@test
publish sub sub
S=$(gpg --batch --with-colons --list-keys sub@test | awk -F: '/^fpr/{f=$10} END{print f}')
g --faked-system-time '20200301T000000!' --quick-set-expire "$F" 20210101T000000 "$S"
publish sub sub-expiring
printf 'key 1\nrevkey\ny\n1\nlost\n\ny\nsave\n' | ask --faked-system-time '20210901T000000!' --edit-key "$F"
publish sub sub-revoked

key exp 20210101T000000
sign before-expiry "$T1" -u exp@test
publish exp expiring
key late never
sign after-expiry "$T2" -u late@test
g --faked-system-time '20200701T000000!' --quick-set-expire "$(fingerprint late@test)" 20210101T000000
publish late late

for kind in hard soft; do
  key $kind never
  sign $kind-before "$T1" -u $kind@test
  sign $kind-after "$T2" -u $kind@test
  [ $kind = hard ] && reason=1 || reason=2
  printf 'y\n%s\nbecause\n\ny\n' $reason |
    ask --faked-system-time '20210601T000000!' --gen-revoke "$(fingerprint $kind@test)" > revocation
  g --faked-system-time '20210601T000000!' --import revocation
  publish $kind $kind
done

g --faked-system-time "$T0" --quick-add-key "$(fingerprint plain@test)" cv25519 encr never
sign encrypted "$T1" -u plain@test -r plain@test --encrypt
rm -f body.json revocation
gpgconf --kill all
rm -rf "$GNUPGHOME"
