# cmake -D INPUT=file -D OUTPUT=file.c -D SYMBOL=name -P EmbedBytes.cmake
#
# Writes a C file that holds the bytes of INPUT: `const unsigned char name[]`, `const size_t name_size`.
file(READ "${INPUT}" hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REPEAT "0x..," 16 line)
string(REGEX REPLACE "(${line})" "\\1\n    " bytes "${bytes}")
file(WRITE "${OUTPUT}" "#include \"${SYMBOL}.h\"

const unsigned char ${SYMBOL}[] = {
    ${bytes}
};
const size_t ${SYMBOL}_size = ${size};
")
