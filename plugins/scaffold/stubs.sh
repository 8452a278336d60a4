#!/bin/sh
# Generates what the templates in Python have of the protocol. It needs
# pip install grpcio-tools==1.51.1 setuptools; what that generates runs with every
# later gRPC and protobuf.
set -e
cd "$(dirname "$0")/../proto"
python3 -m grpc_tools.protoc -I. --python_out=../scaffold/templates/python-stubs --grpc_python_out=../scaffold/templates/python-stubs mzd/v1/*.proto
