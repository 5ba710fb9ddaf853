"""Object storage as a file system: s3fs, made to try again, to show no stale listing and to raise only OSError.

Every request passes through one method, so what is decided here holds for tables, recordings, pyarrow and DuckDB
alike. Credentials, endpoint and region come from botocore's own places (the environment, the AWS files) and are never
handled here; the texts of the errors name neither of them.

How long a request is tried: ``ATTEMPTS`` times, with waits drawn from [0, 1], [0, 2], [0, 4] ... s (exponential
backoff with full jitter, 31 s in all at most), after 500, 502, 503 SlowDown, 504, resets, refused connections and
timeouts. A server that accepts connections and never answers costs ``READ_TIMEOUT_S`` more for each attempt: 211 s in
all. A body that is cut while it arrives is asked for again as often, with the same waits.
"""

from __future__ import annotations

import asyncio
import errno
import random
from datetime import datetime
from typing import Any

import aiohttp
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from fsspec.asyn import sync
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error
from s3fs.utils import FileExpired

__all__ = ["FileExpired", "ObjectStorage", "object_storage"]

ATTEMPTS = 6
LONGEST_WAIT_S = 20.0
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 30

# Reading: blocks of a file that are kept, of which a reader of Parquet visits few, often more than once.
BLOCK_BYTES = 4 * 2**20
KEPT_BLOCKS = 8
# Writing: larger files go up in parts of this size, a few at once; memory in use is their product.
PART_BYTES = 16 * 2**20
PARTS_AT_ONCE = 4

_NO_CREDENTIALS = (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError)
_CUT_BODY = (BotoCoreError, aiohttp.ClientError, ConnectionError, TimeoutError)


def object_storage() -> ObjectStorage:
    """The file system for ``s3://`` paths; one for each thread and process, made on first use."""
    return ObjectStorage(
        use_listings_cache=False,  # other processes write: what was listed before says nothing
        default_block_size=BLOCK_BYTES,
        default_cache_type="blockcache",
        max_concurrency=PARTS_AT_ONCE,
        local_expiry_check=True,  # a file that is replaced while it is read: not every server looks at If-Match
        config_kwargs={
            # Ranges are read, and some servers give them the checksum of the whole object.
            "response_checksum_validation": "when_required",
            "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
        },
    )


class ObjectStorage(S3FileSystem):
    """S3 with botocore's retries for requests, as many for bodies, and OSError for whatever remains."""

    # botocore tries again; s3fs on top of it would multiply the attempts.
    retries = 1

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        try:
            await self.set_session()
        except BotoCoreError as error:
            raise _os_error(error) from None
        call = getattr(await self.get_s3(kwargs.get("Bucket")), method)
        arguments = self._get_s3_method_kwargs(call, *akwarglist, **kwargs)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await call(**arguments)
            except ClientError as error:
                if error.response["Error"].get("Code") in ("416", "InvalidRange"):
                    # What was asked for lay in the file when it was opened: another has taken its place.
                    raise FileExpired(f"{kwargs['Bucket']}/{kwargs['Key']}", "") from error
                raise translate_boto_error(error) from error
            except BotoCoreError as error:
                # Without the cause, whose text names the endpoint.
                raise _os_error(error) from None
            if method == "delete_objects" and answer.get("Errors"):
                first = answer["Errors"][0]
                raise OSError(errno.EIO, f"{len(answer['Errors'])} objects stayed, the first: {first}")
            if method != "get_object":
                return answer
            # botocore tries again until the headers have come; the body is read here, for the same treatment.
            try:
                answer["Body"] = _Body(await answer["Body"].read())
                return answer
            except _CUT_BODY as error:
                answer["Body"].close()
                if attempt == ATTEMPTS:
                    raise _os_error(error) from None
            await asyncio.sleep(random.random() * min(2.0 ** (attempt - 1), LONGEST_WAIT_S))
        return None

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if options.get("cache_type") in (None, "blockcache") and not options.get("cache_options"):
            options["cache_options"] = {"maxblocks": KEPT_BLOCKS}
        return super()._open(path, mode, **options)

    def place(self) -> tuple[str | None, str | None]:
        """Endpoint URL and region that requests go to, for other tools; never keys."""
        try:
            self.connect()
        except BotoCoreError as error:
            raise _os_error(error) from None
        return self._s3.meta.endpoint_url, self._s3.meta.region_name

    def publish(self, local: str, path: str) -> None:
        """Upload a local file; ``path`` shows the whole of it in one step, or stays as it was.

        Up to twice ``PART_BYTES`` it is one request; beyond, a multipart upload that is aborted when it fails.
        """
        self.put_file(local, path, chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def abort_uploads(self, folder: str, before: datetime) -> int:
        """Abort the multipart uploads below a folder begun before a time, left by killed processes; how many."""
        return int(sync(self.loop, self._abort_uploads, folder, before))

    async def _abort_uploads(self, folder: str, before: datetime) -> int:
        bucket, prefix, _ = self.split_path(folder + "/")
        count = 0
        place: dict[str, str] = {}
        while True:
            page = await self._call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **place)
            for upload in page.get("Uploads", []):
                # The prefix again: not every server looks at it.
                if upload["Key"].startswith(prefix) and upload["Initiated"] < before:
                    await self._abort_mpu(bucket, upload["Key"], upload["UploadId"])
                    count += 1
            if not page.get("IsTruncated"):
                return count
            place = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


class _Body:
    """A body that has arrived, as s3fs reads it."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    async def read(self, size: int = -1) -> bytes:
        end = len(self._rest) if size is None or size < 0 else size
        piece, self._rest = bytes(self._rest[:end]), self._rest[end:]
        return piece

    def close(self) -> None:
        """Nothing is open any more."""


def _os_error(error: Exception) -> OSError:
    if isinstance(error, _NO_CREDENTIALS):
        return PermissionError(errno.EACCES, "there are no whole AWS credentials in the environment or the AWS files")
    name = type(error).__name__.removeprefix("Aio")
    return OSError(errno.EIO, f"the object storage did not answer, or not to the end ({name}), {ATTEMPTS} times")
