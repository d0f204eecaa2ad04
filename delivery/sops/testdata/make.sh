#!/bin/sh
# Makes the files of the tests: `sh make.sh SOPS` with the program of
# `go install github.com/getsops/sops/v3/cmd/sops@v3.13.3`. What is here is secret to nobody.
set -eu
sops=${1:?the sops program}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export SOPS_AGE_KEY_FILE=$here/key.txt
to=$(sed -n 's/^# public key: //p' "$here/key.txt")
other=$(sed -n 's/^# public key: //p' "$here/other.txt")

cat >all.yaml <<'EOF'
# how the shop reaches its database
db:
    password: hunter2-in-yaml
    port: 5432
    share: 0.25
    tls: true
    since: 2024-05-06T07:08:09Z
    empty: ""
    none: null
    host_unencrypted: db.internal
# the replicas
replicas:
    - name: one
      token: first "quoted" value
    - name: two
      token: 'zweiter: Wert'
    # a comment in a list
    - 3
pem: |
    -----BEGIN KEY-----
    abc
    -----END KEY-----
clear_unencrypted:
    port: 8080
    ratio: 1.5
    on: true
---
second: document
EOF
printf '{"db": {"password": "hunter2-in-json", "port": 5432, "share": 0.25, "tls": false, "none": null}, "list": [1, "two", {"three": 3}], "at_unencrypted": 9007199254740993, "html": "<a&b>"}' >all.json
printf '# a comment\nPASSWORD=hunter2-in-env\nMULTI=one\\ntwo\nQUOTED="with spaces"\nEMPTY=\nHOST_unencrypted=db.internal\n' >all.env
printf 'top = hunter2-at-the-top\n[db]\n; a comment\npassword = hunter2-in-ini\nhost_unencrypted = db.internal\nodd = `semi;colon`\n[other]\nkey = value\n' >all.ini
printf 'binary \000\001 hunter2-in-binary\n' >all.bin
printf 'plain: stays\npassword: hunter2-by-regex\n' >regex.yaml
printf 'plain: stays\n# sops:enc\npassword: hunter2-by-comment\n' >comment.yaml

for f in all.yaml all.json all.env all.ini all.bin; do
    "$sops" encrypt --age "$to" "$f" >"$here/$f"
    "$sops" decrypt --filename-override "$f" "$here/$f" >"$here/$f.plain"
done
"$sops" encrypt --age "$other,$to" --encrypted-regex '^pass' regex.yaml >"$here/regex.yaml"
"$sops" encrypt --age "$other" regex.yaml >"$here/other.yaml"

# What there are no flags for.
rules() { printf 'creation_rules:\n    - %s\n' "$1" >.sops.yaml; }
rules "{age: $to, encrypted_comment_regex: sops:enc}"
"$sops" --config .sops.yaml encrypt comment.yaml >"$here/comment.yaml"
rules "{age: $to, encrypted_regex: ^pass, mac_only_encrypted: true}"
"$sops" --config .sops.yaml encrypt regex.yaml >"$here/maconly.yaml"
rules "{shamir_threshold: 2, key_groups: [{age: [$to]}, {age: [$other]}]}"
"$sops" --config .sops.yaml encrypt regex.yaml >"$here/groups.yaml"
