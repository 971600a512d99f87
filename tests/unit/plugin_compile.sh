#!/usr/bin/env bash
# Generated code compiles without a warning under more than the project's own flags, and its headers
# as C++; and it says what its .proto says.
#
#   plugin_compile.sh PROTOC PROTOC_GEN_C PLUGIN CC INCLUDE_DIR IMPORT_DIR...
set -euo pipefail

protoc=$1
protoc_gen_c=$2
plugin=$3
cc=$4
include=$5
shift 5
tests=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

wrong() {
    echo "plugin_compile: $1"
    exit 1
}

# Files of nested directories keep them.
mkdir -p "$work/protos/deep/er"
cat >"$work/protos/deep/er/x-1.proto" <<'END'
syntax = "proto3";
package deep;
import "plugin_other.proto";
// The one line.
service Deep { rpc Get(plugin.other.Number) returns (plugin.other.Sum); }
END
protos=(plugin_shapes.proto plugin_other.proto plugin_names.proto plugin_no_package.proto
    plugin_c_package.proto plugin_well_known.proto google/protobuf/empty.proto deep/er/x-1.proto)
# Only included: they have no services.
imported=(google/protobuf/{any,duration,field_mask,struct,timestamp,wrappers}.proto)
"$protoc" --plugin=protoc-gen-c="$protoc_gen_c" --plugin=protoc-gen-grpc-c="$plugin" \
    "-I$work/protos" "-I$tests" "${@/#/-I}" "--c_out=$work" "--grpc-c_out=$work" "${protos[@]}" \
    "${imported[@]}"

for proto in "${protos[@]}"; do
    code=$work/${proto%.proto}.grpc-c
    [[ -f $code.h && -f $code.c ]] || wrong "there is no code of $proto"
    for standard in c11 gnu11 gnu17; do
        "$cc" -fsyntax-only "-std=$standard" -pedantic -Wall -Wextra -Wconversion -Wshadow \
            -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual -Wcast-align -Wundef \
            -Wwrite-strings -Wunused-macros -Werror "-I$work" "-I$include" "$code.c"
    done
    # protoc-gen-c's header has a member called `delete`.
    [[ $proto == plugin_c_package.proto ]] || "$cc" -x c++ -std=c++17 -fsyntax-only -pedantic \
        -Wall -Wextra -Werror "-I$work" "-I$include" "$code.h"
done

grep -qF ' * The one line.' "$work/deep/er/x-1.grpc-c.h" ||
    wrong "the service's comment is missing"
grep -qF '    /* Answers the question with itself. */' "$work/plugin_shapes.grpc-c.h" ||
    wrong "an rpc's comment is missing"
grep -qF '#include "deep/er/x-1.pb-c.h"' "$work/deep/er/x-1.grpc-c.h" || wrong "an include is wrong"
if grep -nE '.{101}' "$work/plugin_shapes.grpc-c.c" "$work/deep/er/x-1.grpc-c.h"; then
    wrong "these lines are too long"
fi

# Names that protoc-gen-c emits are its own.
defined() {
    "$cc" "-I$work" "-I$include" -c -o "$1.o" "$1" && nm --defined-only "$1.o" | cut -d' ' -f3
}
for file in plugin_shapes plugin_names; do
    twice=$(sort <(defined "$work/$file.grpc-c.c") <(defined "$work/$file.pb-c.c") | uniq -d)
    [[ -z $twice ]] || wrong "$file: defined by protoc-gen-c and by us: $twice"
done
