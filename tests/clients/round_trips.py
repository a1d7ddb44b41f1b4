"""Stores files of telling sizes with one client, reads them back, lists and deletes them.

Usage: round_trips.py CLIENT ENDPOINT ID SECRET DIR. Exits with 1 and a sentence when a byte or a name differs.
The file of DIR/js has node's client, if that is the one.
"""

import atexit
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

client, endpoint, key_id, secret, base = sys.argv[1:6]
scratch = pathlib.Path(base)
host = endpoint.removeprefix("http://")
here = pathlib.Path(__file__).parent
tools = pathlib.Path(sys.executable).parent
bucket = f"trips-{client}"
SIZES = [0, 1, (5 << 20) - 1, 5 << 20, 64 << 20]

env = dict(
    os.environ,
    AWS_ACCESS_KEY_ID=key_id,
    AWS_SECRET_ACCESS_KEY=secret,
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_CONFIG_FILE=str(scratch / "none"),
    AWS_SHARED_CREDENTIALS_FILE=str(scratch / "none"),
    HOME=str(scratch),
    RCLONE_CONFIG=str(scratch / "rclone.conf"),
)


def run(*command):
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, timeout=240)
    if done.returncode:
        sys.exit(f"{client}: {command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Boto3:
    def __init__(self):
        import boto3

        self.s3 = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=key_id, aws_secret_access_key=secret, region_name="us-east-1"
        )

    def make(self):
        self.s3.create_bucket(Bucket=bucket)

    def put(self, path, key):
        self.s3.upload_file(str(path), bucket, key)

    def get(self, key, path):
        self.s3.download_file(bucket, key, str(path))

    def keys(self):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def delete(self, keys):
        done = self.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
        assert len(done["Deleted"]) == len(keys), done

    def unmake(self):
        self.s3.delete_bucket(Bucket=bucket)


class Minio:
    def __init__(self):
        from minio import Minio as Client

        self.s3 = Client(host, access_key=key_id, secret_key=secret, secure=False)

    def make(self):
        self.s3.make_bucket(bucket_name=bucket)

    def put(self, path, key):
        self.s3.fput_object(bucket_name=bucket, object_name=key, file_path=str(path), part_size=5 << 20)

    def get(self, key, path):
        self.s3.fget_object(bucket_name=bucket, object_name=key, file_path=str(path))

    def keys(self):
        return [entry.object_name for entry in self.s3.list_objects(bucket_name=bucket, recursive=True)]

    def delete(self, keys):
        from minio.deleteobjects import DeleteObject

        wanted = [DeleteObject(key) for key in keys]
        errors = list(self.s3.remove_objects(bucket_name=bucket, delete_object_list=wanted))
        assert not errors, errors

    def unmake(self):
        self.s3.remove_bucket(bucket_name=bucket)


class Program:
    """A client that is run once for each step."""

    def make(self):
        run(*self.base, *self.steps["make"])

    def put(self, path, key):
        run(*self.base, *self.steps["put"](path, key))

    def get(self, key, path):
        run(*self.base, *self.steps["get"](key, path))

    def keys(self):
        return sorted(self.steps["keys"](run(*self.base, *self.steps["list"])))

    def delete(self, keys):
        for key in keys:
            run(*self.base, *self.steps["delete"](key))

    def unmake(self):
        run(*self.base, *self.steps["unmake"])


def url(key=""):
    return f"s3://{bucket}/{key}" if key else f"s3://{bucket}"


class Awscli(Program):
    base = [sys.executable, tools / "aws", "--endpoint-url", endpoint]
    steps = {
        "make": ["s3", "mb", url()],
        "put": lambda path, key: ["s3", "cp", path, url(key)],
        "get": lambda key, path: ["s3", "cp", url(key), path],
        "list": ["s3api", "list-objects-v2", "--bucket", bucket, "--query", "Contents[].Key", "--output", "text"],
        "keys": lambda text: text.strip().split("\t"),
        "delete": lambda key: ["s3", "rm", url(key)],
        "unmake": ["s3", "rb", url()],
    }


class S5cmd(Program):
    base = [tools / "s5cmd", "--endpoint-url", endpoint]
    steps = {
        "make": ["mb", url()],
        "put": lambda path, key: ["cp", path, url(key)],
        "get": lambda key, path: ["cp", url(key), path],
        "list": ["ls", url("*")],
        "keys": lambda text: [line[32:].strip().split(" ", 1)[-1].strip() for line in text.splitlines()],
        "delete": lambda key: ["rm", url(key)],
        "unmake": ["rb", url()],
    }


class S3cmd(Program):
    base = [
        sys.executable,
        tools / "s3cmd",
        f"--access_key={key_id}",
        f"--secret_key={secret}",
        f"--host={host}",
        f"--host-bucket={host}/%(bucket)",
        "--no-ssl",
        "--region=us-east-1",
        "--multipart-chunk-size-mb=5",
        "--no-progress",
    ]
    steps = {
        "make": ["mb", url()],
        "put": lambda path, key: ["put", path, url(key)],
        "get": lambda key, path: ["get", "--force", url(key), path],
        "list": ["ls", "--recursive", url()],
        "keys": lambda text: [line.split(url() + "/", 1)[1] for line in text.splitlines()],
        "delete": lambda key: ["del", url(key)],
        "unmake": ["rb", url()],
    }


class Rclone(Program):
    base = [tools / "rclone", "--s3-upload-cutoff", "5Mi", "--s3-chunk-size", "5Mi"]
    steps = {
        "make": ["mkdir", f"there:{bucket}"],
        "put": lambda path, key: ["copyto", path, f"there:{bucket}/{key}"],
        "get": lambda key, path: ["copyto", f"there:{bucket}/{key}", path],
        "list": ["lsf", "-R", "--files-only", f"there:{bucket}"],
        "keys": lambda text: text.splitlines(),
        "delete": lambda key: ["deletefile", f"there:{bucket}/{key}"],
        "unmake": ["rmdir", f"there:{bucket}"],
    }

    def __init__(self):
        (scratch / "rclone.conf").write_text(
            f"[there]\ntype = s3\nprovider = Other\naccess_key_id = {key_id}\nsecret_access_key = {secret}\n"
            f"endpoint = {endpoint}\nregion = us-east-1\n"
        )


class Js(Program):
    base = ["node", scratch / "js" / "aws_sdk.mjs", endpoint, bucket]
    steps = {
        "make": ["make"],
        "put": lambda path, key: ["put", path, key],
        "get": lambda key, path: ["get", key, path],
        "list": ["list"],
        "keys": lambda text: text.splitlines(),
        "delete": lambda key: ["delete", key],
        "unmake": ["unmake"],
    }


class S3fs:
    """Files of a mounted bucket. Unmounted whatever happens."""

    mount = scratch / "mount"

    def __init__(self):
        self.bucket = Boto3()

    def make(self):
        self.bucket.make()
        self.mount.mkdir()
        passwords = scratch / "passwords"
        passwords.write_text(f"{key_id}:{secret}\n")
        passwords.chmod(0o600)
        options = f"url={endpoint},use_path_request_style,passwd_file={passwords},endpoint=us-east-1,multipart_size=5"
        run("s3fs", bucket, self.mount, "-o", options)
        atexit.register(self.let_go)

    def let_go(self):
        if self.mount.is_mount():
            subprocess.run(["fusermount3", "-u", "-z", str(self.mount)], check=True)

    def put(self, path, key):
        (self.mount / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.mount / key)

    def get(self, key, path):
        shutil.copyfile(self.mount / key, path)

    def keys(self):
        return [str(path.relative_to(self.mount)) for path in self.mount.rglob("*") if path.is_file()]

    def delete(self, keys):
        for key in keys:
            (self.mount / key).unlink()
        for folder in {(self.mount / key).parent for key in keys}:
            folder.rmdir()

    def unmake(self):
        self.let_go()
        self.bucket.unmake()


def content(size):
    return hashlib.shake_128(f"{client} {size}".encode()).digest(size)


def main():
    tool = {
        "boto3": Boto3,
        "minio": Minio,
        "awscli": Awscli,
        "s5cmd": S5cmd,
        "s3cmd": S3cmd,
        "rclone": Rclone,
        "js": Js,
        "s3fs": S3fs,
    }[client]()
    tool.make()
    keys = []
    for size in SIZES:
        key, sent, got = f"a folder/of {size} bytes", scratch / "sent", scratch / "got"
        sent.write_bytes(content(size))
        tool.put(sent, key)
        got.unlink(missing_ok=True)
        tool.get(key, got)
        if got.read_bytes() != content(size):
            sys.exit(f"{client}: {size} bytes came back as {got.stat().st_size} others")
        keys.append(key)
    listed = sorted(tool.keys())
    if listed != sorted(keys):
        sys.exit(f"{client}: listed {listed}, stored {sorted(keys)}")
    tool.delete(keys)
    tool.unmake()
    print(f"{client}: {len(keys)} round trips")


main()
