"""Object storage as a file system: s3fs, made to try again, to show no stale listing and to raise only OSError.

Every request passes through one method, so what is decided here holds for tables, recordings, pyarrow and DuckDB
alike. Credentials, endpoint and region come from botocore's own places (the environment, the AWS files) and are never
handled here; the texts of the errors name neither keys nor endpoint. :func:`advice` says what can be done about one.

A bucket in another region than the configured one is found there by botocore, as long as the server says where it is
and no endpoint is set that leads elsewhere.

How long a request is tried: ``ATTEMPTS`` times, with waits drawn from [0, 1], [0, 2], [0, 4] ... s (exponential
backoff with full jitter, 31 s in all at most), after 500, 502, 503 SlowDown, 504, resets, refused connections and
timeouts. A server that accepts connections and never answers costs ``READ_TIMEOUT_S`` more for each attempt: 211 s in
all. A body that is cut while it arrives is asked for again as often, with the same waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import aiohttp
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as EndpointError
from botocore.utils import parse_timestamp  # type: ignore[import-untyped]
from fsspec.asyn import sync
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error
from s3fs.utils import FileExpired

__all__ = ["FileExpired", "ObjectStorage", "advice", "object_storage"]

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
# What servers say when nothing more fits: AWS, MinIO, Ceph, and by the status of HTTP.
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}
_ELSEWHERE = {"PermanentRedirect", "301"}
_REGION_HEADER = "x-amz-bucket-region"
_NO_ANSWER = (HTTPClientError, EndpointError, IncompleteReadError, aiohttp.ClientError, ConnectionError, TimeoutError)
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


class NoBucket(OSError):
    """The bucket does not exist. No FileNotFoundError, which s3fs takes for a file that is not there yet."""


class OtherRegion(OSError):
    """The bucket lies in another region than the one that was asked.

    Attributes:
        region: its name; None where the server does not say it.
    """

    region: str | None = None


def advice(error: OSError) -> str:
    """What a person can do about an error of object storage."""
    if isinstance(error, NoBucket):
        return "Create the bucket, or correct the URL (LAPS_STORE, LAPS_LANDING)."
    if isinstance(error, OtherRegion):
        region = error.region or "the bucket's region"
        return f"Set AWS_DEFAULT_REGION to {region}, and AWS_ENDPOINT_URL, where it is set, to an endpoint there."
    if isinstance(error, PermissionError):
        return (
            "Check the credentials in the environment or the AWS files (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE) and what they may do."
        )
    if error.errno == errno.ENOSPC:
        return "Make room there or raise the quota, and run it again; what is stored stays as it is."
    return "Run it again; if it stays, check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the network."


class ObjectStorage(S3FileSystem):
    """S3 with botocore's retries for requests, as many for bodies, and OSError for whatever remains."""

    # botocore tries again; s3fs on top of it would multiply the attempts.
    retries = 1

    def __init__(self, **options: Any) -> None:
        session = AioSession()
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
        super().__init__(session=session, **options)

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        try:
            await self.set_session()
        except (BotoCoreError, ValueError) as error:
            raise _naming(_os_error(error), kwargs) from None
        call = getattr(await self.get_s3(kwargs.get("Bucket")), method)
        arguments = self._get_s3_method_kwargs(call, *akwarglist, **kwargs)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await call(**arguments)
            except ClientError as error:
                if error.response["Error"].get("Code") in ("416", "InvalidRange"):
                    # What was asked for lay in the file when it was opened: another has taken its place.
                    raise FileExpired(f"{kwargs['Bucket']}/{kwargs['Key']}", "") from error
                told = (
                    await self._with_reason(error, kwargs["Bucket"], kwargs["Key"])
                    if method == "head_object"
                    else error
                )
                raise _naming(_answered(told), kwargs) from error
            except BotoCoreError as error:
                # Without the cause, whose text names the endpoint.
                raise _naming(_os_error(error), kwargs) from None
            except RecursionError:
                # botocore asks the bucket where it is, and when that is answered with a redirection, again.
                raise _naming(_other_region(None), kwargs) from None
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
                    raise _naming(_os_error(error), kwargs) from None
            await asyncio.sleep(random.random() * min(2.0 ** (attempt - 1), LONGEST_WAIT_S))
        return None

    async def _with_reason(self, error: ClientError, bucket: str, key: str) -> ClientError:
        """An answer to HEAD has no body that says why; a listing that fails in the same way has one."""
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404 or (status >= 500 and status != 507):
            return error
        try:
            await (await self.get_s3(bucket)).list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        except ClientError as told:
            if told.response["ResponseMetadata"]["HTTPStatusCode"] == status:
                return told
        except (BotoCoreError, RecursionError):
            pass
        return error

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if options.get("cache_type") in (None, "blockcache") and not options.get("cache_options"):
            options["cache_options"] = {"maxblocks": KEPT_BLOCKS}
        return super()._open(path, mode, **options)

    def read_files(self, paths: Sequence[str]) -> list[bytes | OSError]:
        """The content of files, all asked for at once, each with one request; of one that cannot be read its error."""
        return list(sync(self.loop, self._read_files, paths))

    async def _read_files(self, paths: Sequence[str]) -> list[bytes | OSError]:
        async def read(path: str) -> bytes | OSError:
            bucket, key, _ = self.split_path(path)
            try:
                # s3fs would look at the file first.
                answer = await self._call_s3("get_object", Bucket=bucket, Key=key)
            except OSError as error:
                return error
            return bytes(await answer["Body"].read())

        return await asyncio.gather(*map(read, paths))

    def place(self) -> tuple[str | None, str | None]:
        """Endpoint URL and region that requests go to, for other tools; never keys."""
        try:
            self.connect()
        except (BotoCoreError, ValueError) as error:
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


def _time(said: Any) -> datetime:
    """A time in an answer. botocore guesses the format of each, which is most of what reading a long listing takes."""
    if isinstance(said, str) and said[10:11] == "T":
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(said)
    return cast("datetime", parse_timestamp(said))


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


def _answered(error: ClientError) -> OSError:
    """What the server answered; of an error that s3fs knows its class."""
    about = error.response["Error"]
    code, said = str(about.get("Code")), str(about.get("Message") or "").rstrip(". ")
    region = about.get("Region") or error.response["ResponseMetadata"].get("HTTPHeaders", {}).get(_REGION_HEADER)
    if code in _ELSEWHERE or (region and code in ("400", "AuthorizationHeaderMalformed")):
        return _other_region(region)
    if code == "NoSuchBucket":
        return NoBucket(errno.ENODEV, "the bucket does not exist")
    if code in _FULL:
        return OSError(errno.ENOSPC, f"the object storage has no room ({code})")
    known = type(translate_boto_error(error, set_cause=False))
    # OSError makes of these numbers the classes that s3fs looks for.
    if issubclass(known, PermissionError):
        return OSError(errno.EACCES, said)
    if issubclass(known, FileExistsError):
        return OSError(errno.EEXIST, said)
    if issubclass(known, FileNotFoundError):
        return OSError(errno.ENOENT, said)
    return OSError(errno.EIO, f"{said} ({code})")


def _other_region(region: str | None) -> OtherRegion:
    where = f"the region {region}" if region else "another region, and the server does not say in which"
    error = OtherRegion(errno.EXDEV, f"the bucket lies in {where}")
    error.region = region
    return error


def _naming(error: OSError, request: dict[str, Any]) -> OSError:
    """The error with the object's name, for whoever does not know what was being read."""
    name = request.get("Key") or request.get("Prefix") or ""
    error.filename = f"s3://{request.get('Bucket')}/{name}"
    return error


def _os_error(error: Exception) -> OSError:
    """What kept a request from being answered."""
    name = type(error).__name__.removeprefix("Aio")
    if isinstance(error, _NO_CREDENTIALS):
        return PermissionError(errno.EACCES, "there are no whole AWS credentials in the environment or the AWS files")
    if isinstance(error, ProfileNotFound):
        return PermissionError(errno.EACCES, "the profile in AWS_PROFILE is not in the AWS files")
    if isinstance(error, ParamValidationError):
        return NoBucket(errno.EINVAL, "a bucket cannot have this name")
    if isinstance(error, _NO_ANSWER):
        return OSError(errno.EIO, f"the object storage did not answer, or not to the end ({name}), {ATTEMPTS} times")
    # botocore raises a plain ValueError where the endpoint is no URL; its text, and that of others, shows the value.
    wrong = "AWS_ENDPOINT_URL is no URL" if type(error) is ValueError else f"the AWS settings cannot be used ({name})"
    return OSError(errno.EINVAL, wrong)
