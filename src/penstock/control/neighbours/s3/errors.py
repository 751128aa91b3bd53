"""S3's errors, each with S3's code, status and words.

AWS: "Error responses", Amazon S3 API Reference.
"""

from __future__ import annotations

import errno

from penstock.errors import AwsError


def no_such_bucket(bucket: str) -> AwsError:
    return AwsError("NoSuchBucket", "The specified bucket does not exist", status=404, members={"BucketName": bucket})


def no_such_key(key: str) -> AwsError:
    return AwsError("NoSuchKey", "The specified key does not exist.", status=404, members={"Key": key})


def no_such_upload(upload_id: str) -> AwsError:
    text = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    return AwsError("NoSuchUpload", text, status=404, members={"UploadId": upload_id})


def no_such_version(version: str) -> AwsError:
    return AwsError(
        "NoSuchVersion", "The specified version does not exist.", status=404, members={"VersionId": version}
    )


def invalid_bucket_name(bucket: str) -> AwsError:
    return AwsError("InvalidBucketName", "The specified bucket is not valid.", members={"BucketName": bucket})


def bucket_already_owned(bucket: str) -> AwsError:
    text = "Your previous request to create the named bucket succeeded and you already own it."
    return AwsError("BucketAlreadyOwnedByYou", text, status=409, members={"BucketName": bucket})


def bucket_already_exists(bucket: str) -> AwsError:
    text = (
        "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
        "Please select a different name and try again."
    )
    return AwsError("BucketAlreadyExists", text, status=409, members={"BucketName": bucket})


def bucket_not_empty(bucket: str) -> AwsError:
    text = "The bucket you tried to delete is not empty"
    return AwsError("BucketNotEmpty", text, status=409, members={"BucketName": bucket})


def access_denied() -> AwsError:
    return AwsError("AccessDenied", "Access Denied", status=403)


def key_too_long(size: int, most: int) -> AwsError:
    return AwsError("KeyTooLongError", "Your key is too long", members={"Size": size, "MaxSizeAllowed": most})


def bad_digest(name: str) -> AwsError:
    return AwsError("BadDigest", f"The {name} you specified did not match the calculated checksum.")


def invalid_digest() -> AwsError:
    return AwsError("InvalidDigest", "The Content-MD5 you specified was invalid.")


def invalid_request(message: str) -> AwsError:
    return AwsError("InvalidRequest", message)


def invalid_argument(message: str, name: str, value: str | int) -> AwsError:
    return AwsError("InvalidArgument", message, members={"ArgumentName": name, "ArgumentValue": value})


def malformed_xml() -> AwsError:
    text = "The XML you provided was not well-formed or did not validate against our published schema"
    return AwsError("MalformedXML", text)


def invalid_range(asked: str, size: int) -> AwsError:
    members: dict[str, str | int] = {"RangeRequested": asked, "ActualObjectSize": size}
    return AwsError("InvalidRange", "The requested range is not satisfiable", status=416, members=members)


def precondition_failed(condition: str) -> AwsError:
    text = "At least one of the pre-conditions you specified did not hold"
    return AwsError("PreconditionFailed", text, status=412, members={"Condition": condition})


def not_modified() -> AwsError:
    return AwsError("NotModified", "Not Modified", status=304)


def entity_too_large(size: int, most: int) -> AwsError:
    text = "Your proposed upload exceeds the maximum allowed size"
    return AwsError("EntityTooLarge", text, members={"ProposedSize": size, "MaxSizeAllowed": most})


def entity_too_small(part: int, size: int, least: int) -> AwsError:
    text = "Your proposed upload is smaller than the minimum allowed size"
    members: dict[str, str | int] = {"PartNumber": part, "ProposedSize": size, "MinSizeAllowed": least}
    return AwsError("EntityTooSmall", text, members=members)


def invalid_part(part: int) -> AwsError:
    text = (
        "One or more of the specified parts could not be found.  The part may not have been uploaded, "
        "or the specified entity tag may not match the part's entity tag."
    )
    return AwsError("InvalidPart", text, members={"PartNumber": part})


def invalid_part_order() -> AwsError:
    text = "The list of parts was not in ascending order. Parts must be ordered by part number."
    return AwsError("InvalidPartOrder", text)


def incomplete_body() -> AwsError:
    return AwsError("IncompleteBody", "The request body terminated unexpectedly")


def request_timeout() -> AwsError:
    text = (
        "Your socket connection to the server was not read from or written to within the timeout period. "
        "Idle connections will be closed."
    )
    return AwsError("RequestTimeout", text)


def not_implemented(header: str) -> AwsError:
    text = "A header you provided implies functionality that is not implemented"
    return AwsError("NotImplemented", text, status=501, members={"Header": header})


def from_os_error(error: OSError) -> AwsError:
    """What a client is told when the disk refuses. 507 is not retried by the SDKs, which cannot make room."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return AwsError("InsufficientStorage", "The disk that holds Penstock's buckets is full.", status=507)
    return AwsError("InternalError", "We encountered an internal error. Please try again.", status=500)


def acl_not_supported() -> AwsError:
    return AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")


def metadata_too_large(size: int, most: int) -> AwsError:
    text = "Your metadata headers exceed the maximum allowed metadata size"
    return AwsError("MetadataTooLarge", text, members={"Size": size, "MaxSizeAllowed": most})


def missing_content_length() -> AwsError:
    return AwsError("MissingContentLength", "You must provide the Content-Length HTTP header.", status=411)
