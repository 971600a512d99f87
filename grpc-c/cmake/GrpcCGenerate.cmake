# grpc_c_generate(<target> PROTOS <file>... [IMPORT_DIRS <dir>...])
#
# Makes a static library <target> of the messages (protoc-gen-c) and of the servers and clients
# (protoc-gen-grpc-c) of .proto files, linked to grpc-c::grpc-c. A file is given as others import
# it, relative to one of the import directories, or as an absolute path below one; without
# IMPORT_DIRS that is the current source directory, and protobuf's own is always the last. Its code
# lands in the same relative place below <build folder>/<target>, which is on the include path of
# whoever links <target>, as a system directory: some warnings fire on protoc-gen-c's output.
#
#   grpc_c_generate(greeter_proto PROTOS hello/greeter.proto google/protobuf/timestamp.proto)
#
#   #include "hello/greeter.grpc-c.h"
#
# Every file that is imported by one of them must be in the list, or in that of a library that is
# linked to <target>; google/protobuf/*.proto, too, for which protobuf-c brings no code. Where the
# target payloadstore_warnings exists, our generated code (not protoc-gen-c's) is compiled with its
# options.
include_guard()
cmake_policy(VERSION 3.20...3.25) # DEPFILE

find_program(PROTOC protoc REQUIRED)
find_program(PROTOC_GEN_C protoc-gen-c REQUIRED)
find_path(PROTOBUF_IMPORT_DIR google/protobuf/descriptor.proto REQUIRED
          DOC "Where protobuf's own .proto files lie (libprotobuf-dev)")

# The name by which protoc knows `file`, into `name`, and the file's path into `path`.
function(_grpc_c_resolve file import_dirs name path)
    foreach(dir IN LISTS import_dirs)
        if(IS_ABSOLUTE ${file})
            cmake_path(IS_PREFIX dir ${file} NORMALIZE below)
            if(below)
                cmake_path(RELATIVE_PATH file BASE_DIRECTORY ${dir} OUTPUT_VARIABLE relative)
                set(${name} ${relative} PARENT_SCOPE)
                set(${path} ${file} PARENT_SCOPE)
                return()
            endif()
        elseif(EXISTS ${dir}/${file})
            set(${name} ${file} PARENT_SCOPE)
            set(${path} ${dir}/${file} PARENT_SCOPE)
            return()
        endif()
    endforeach()
    message(FATAL_ERROR "grpc_c_generate: ${file} lies in none of IMPORT_DIRS (${import_dirs})")
endfunction()

function(grpc_c_generate target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "PROTOS;IMPORT_DIRS")
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_PROTOS)
        message(FATAL_ERROR
                "usage: grpc_c_generate(<target> PROTOS <file>... [IMPORT_DIRS <dir>...])")
    endif()
    set(import_dirs)
    foreach(dir IN LISTS arg_IMPORT_DIRS)
        cmake_path(ABSOLUTE_PATH dir NORMALIZE)
        list(APPEND import_dirs ${dir})
    endforeach()
    if(NOT import_dirs)
        set(import_dirs ${CMAKE_CURRENT_SOURCE_DIR})
    endif()
    list(APPEND import_dirs ${PROTOBUF_IMPORT_DIR})
    list(REMOVE_DUPLICATES import_dirs)
    list(TRANSFORM import_dirs PREPEND -I OUTPUT_VARIABLE import_flags)

    set(out ${CMAKE_CURRENT_BINARY_DIR}/${target})
    file(MAKE_DIRECTORY ${out})
    set(messages)
    set(stubs)
    foreach(proto IN LISTS arg_PROTOS)
        _grpc_c_resolve(${proto} "${import_dirs}" name path)
        # As protoc-gen-c and protoc-gen-grpc-c do it.
        string(REGEX REPLACE "\\.proto(devel)?$" "" base ${name})
        # In the order of protoc's dependency file: ninja rebuilds for ever where another is first.
        set(outputs ${out}/${base}.grpc-c.c ${out}/${base}.grpc-c.h
                    ${out}/${base}.pb-c.c ${out}/${base}.pb-c.h)
        cmake_path(GET base PARENT_PATH parent)
        file(MAKE_DIRECTORY ${out}/${parent})
        # protoc's dependency file makes an edit of an imported file count as well.
        add_custom_command(
            OUTPUT ${outputs}
            COMMAND ${PROTOC} --plugin=protoc-gen-c=${PROTOC_GEN_C}
                    --plugin=protoc-gen-grpc-c=$<TARGET_FILE:grpc-c::protoc-gen-grpc-c>
                    ${import_flags} --c_out=${out} --grpc-c_out=${out}
                    --dependency_out=${out}/${base}.d ${name}
            DEPENDS ${path} grpc-c::protoc-gen-grpc-c ${PROTOC_GEN_C}
            DEPFILE ${out}/${base}.d
            COMMENT "protobuf-c and grpc-c code of ${name}"
            VERBATIM)
        list(APPEND messages ${out}/${base}.pb-c.c ${out}/${base}.pb-c.h)
        list(APPEND stubs ${out}/${base}.grpc-c.c ${out}/${base}.grpc-c.h)
    endforeach()

    add_library(${target} STATIC ${messages} ${stubs})
    target_include_directories(${target} SYSTEM PUBLIC ${out})
    target_link_libraries(${target} PUBLIC grpc-c::grpc-c)
    # For whoever puts it into a shared library.
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    set_source_files_properties(${messages} PROPERTIES COMPILE_OPTIONS -w)
    if(TARGET payloadstore_warnings)
        set_source_files_properties(${stubs} PROPERTIES COMPILE_OPTIONS
            "$<TARGET_PROPERTY:payloadstore_warnings,INTERFACE_COMPILE_OPTIONS>")
    endif()
endfunction()
