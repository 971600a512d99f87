#!/usr/bin/env bash
# What protoc-gen-grpc-c refuses, by way of protoc and by itself: exit statuses and messages.
#
#   plugin_reject.sh PROTOC PLUGIN
# shellcheck disable=SC2016 # commands are handed to inner shells
set -euo pipefail

protoc=$1
plugin=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

wrong() {
    echo "plugin_reject: $1"
    failures=$((failures + 1))
}

# expect NAME STATUS TEXT COMMAND...: the exit status, and what is printed on either stream.
expect() {
    local name=$1 status=$2 text=$3 got=0
    shift 3
    "$@" >"$work/said" 2>&1 </dev/null || got=$?
    [[ $got -eq $status ]] || wrong "$name: exit status $got instead of $status"
    grep -qF -e "$text" "$work/said" || wrong "$name: no \"$text\" in: $(<"$work/said")"
}

compile() {
    "$protoc" --plugin=protoc-gen-grpc-c="$plugin" "-I$work" "--grpc-c_out=$work/out" "$@"
}

# refuse NAME TEXT: a.proto of standard input gives no code, but a message of ours with TEXT.
refuse() {
    { echo 'syntax = "proto3"; package a; message M {}' && cat; } >"$work/a.proto"
    expect "$1" 1 "$2" compile a.proto
    grep -qF -e "--grpc-c_out: a.proto: " "$work/said" || wrong "$1: protoc does not name the file"
    [[ ! -e $work/out/a.grpc-c.h ]] || wrong "$1: there is a header"
}

mkdir "$work/out"

refuse "rpc Init" 'rpc Init of service S cannot be called so: "a__s__init"' <<'END'
service S { rpc Good(M) returns (M); rpc Init(M) returns (M); }
END
refuse "rpc Descriptor" 'rpc Descriptor of service S cannot be called so' <<'END'
service S { rpc Descriptor(M) returns (M); }
END
refuse "rpc Service" 'rpc Service of service S cannot be called so' <<'END'
service S { rpc Service(M) returns (M); }
END
refuse "rpcs of one C name" 'cannot be called so: it becomes "a__s__get_it" in C, and so does rpc' <<'END'
service S { rpc GetIt(M) returns (M); rpc getIt(M) returns (M); }
END
refuse "rpc that is another's function" 'it becomes "a__s__get__sync" in C, and so does rpc' <<'END'
service S { rpc Get(M) returns (M); rpc get__sync(M) returns (M); }
END
refuse "rpc that is another's handler" 'it becomes "a__s__get__message" in C, and so does' <<'END'
service S { rpc Get(stream M) returns (M); rpc get__message(M) returns (M); }
END
refuse "services of one C name" 'it becomes "a__s_t__' <<'END'
service S_t { rpc A(M) returns (M); }
service ST2 {}
service sT { rpc B(M) returns (M); }
END
refuse "service and message of one C name" 'and so does message a.FooBar' <<'END'
message FooBar {}
service foo_bar { rpc A(M) returns (M); }
END
refuse "rpc User" 'rpc User of service S cannot be called so: the struct of handlers has' <<'END'
service S { rpc User(M) returns (M); }
END
for word in Return Int typeof bool assert; do
    refuse "rpc $word" "rpc $word of service S cannot be called so: \"${word,,}\" is taken in C" <<END
service S { rpc $word(M) returns (M); }
END
done

echo 'syntax = "proto3"; message M { optional int32 i = 1; }' >"$work/a.proto"
expect "proto3 optional" 1 "hasn't been updated to support optional fields" compile a.proto
echo 'syntax = "proto3"; message M {}' >"$work/a.proto"
expect "unknown parameter" 1 'unknown parameter "speed"' compile --grpc-c_opt=speed=high a.proto

# By itself.
expect "empty input" 1 "protoc-gen-grpc-c: the request is empty" "$plugin"
head -c 65536 /dev/zero >"$work/zeros"
from() { bash -c '"$0" <"$1"' "$plugin" "$1"; }
expect "zeros" 1 "cannot be parsed" from "$work/zeros"
expect "text" 1 "cannot be parsed" from "$work/a.proto"
expect "no standard input" 1 "reading the request failed" bash -c '"$0" <&-' "$plugin"
expect "version" 0 "protoc-gen-grpc-c " "$plugin" --version
expect "help" 0 "--grpc-c_out=" "$plugin" --help
expect "unknown option" 1 "--grpc-c_out=" "$plugin" --fast

# An answer that cannot be written is not a success.
cat >"$work/keep" <<END
#!/bin/sh
exec cat >"$work/request"
END
chmod +x "$work/keep"
"$protoc" --plugin=protoc-gen-keep="$work/keep" "-I$work" "--keep_out=$work/out" a.proto || true
expect "full disk" 1 "No space left on device" bash -c '"$0" <"$1" >/dev/full' "$plugin" "$work/request"

[[ $failures -eq 0 ]]
