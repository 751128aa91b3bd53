"""Amazon S3, as much of it as the SDKs call: buckets, objects, multipart uploads, on files."""
