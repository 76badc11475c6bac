/* libnvidia-ml.so.1 for tests: the functions that detection calls, on machines without a GPU.
 *
 * NVML_LISTING names a text file that says what is there, a line each, fields apart by `|`:
 *
 *     init|CODE                                    nvmlInit fails
 *     driver|VERSION
 *     gpu|UUID|NAME|BYTES|MAJOR.MINOR|MIG          BYTES `-`: memory is not supported; MIG `-`, 0 or 1
 *     used|BYTES                                   of the GPU above, by others
 *     hang|SECONDS                                 nvmlInit takes so long
 *     slice|UUID|NAME|BYTES                        of the GPU above; UUID `-` leaves a gap in the numbers
 *     lost|CODE                                    a GPU whose handle cannot be had
 *
 * Without the variable there is no driver. Signatures and codes are those of nvml.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9, MOST = 16 };

typedef struct { unsigned long long total, free, used; } Memory;

typedef struct Unit {
    char uuid[96], name[96], bytes[32], mig;
    int major, minor, failure, slice_count;
    unsigned long long used;
    struct Unit *slices;
} Unit;

static Unit gpus[MOST];
static unsigned gpu_count;
static char driver_version[80];

int nvmlInitWithFlags(unsigned flags)
{
    const char *path = getenv("NVML_LISTING");
    FILE *listing = path ? fopen(path, "r") : NULL;
    char line[512];
    int status = SUCCESS, seconds = 0;
    (void)flags;
    if (!listing)
        return DRIVER_NOT_LOADED;
    for (unsigned i = 0; i < gpu_count; i++)
        free(gpus[i].slices);
    gpu_count = 0;
    memset(gpus, 0, sizeof gpus);
    while (fgets(line, sizeof line, listing) && gpu_count < MOST) {
        Unit *gpu = &gpus[gpu_count];
        if (sscanf(line, "init|%d", &status) == 1 || sscanf(line, "driver|%79s", driver_version) == 1)
            continue;
        if (sscanf(line, "hang|%d", &seconds) == 1 ||
            (gpu_count > 0 && sscanf(line, "used|%llu", &gpus[gpu_count - 1].used) == 1))
            continue;
        if (sscanf(line, "gpu|%95[^|]|%95[^|]|%31[^|]|%d.%d|%c", gpu->uuid, gpu->name, gpu->bytes, &gpu->major,
                   &gpu->minor, &gpu->mig) == 6) {
            gpu->slices = calloc(MOST, sizeof(Unit));
            gpu_count++;
        } else if (sscanf(line, "lost|%d", &gpu->failure) == 1) {
            gpu_count++;
        } else if (gpu_count > 0) {
            Unit *parent = &gpus[gpu_count - 1], *slice = &parent->slices[parent->slice_count];
            if (sscanf(line, "slice|%95[^|]|%95[^|]|%31[^|\n]", slice->uuid, slice->name, slice->bytes) >= 1)
                parent->slice_count++;
        }
    }
    fclose(listing);
    sleep(seconds);
    return status;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    snprintf(version, length, "%s", driver_version);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = gpu_count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Unit **handle)
{
    *handle = &gpus[index];
    return gpus[index].failure;
}

int nvmlDeviceGetUUID(Unit *unit, char *uuid, unsigned length)
{
    snprintf(uuid, length, "%s", unit->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(Unit *unit, char *name, unsigned length)
{
    snprintf(name, length, "%s", unit->name);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Unit *unit, Memory *memory)
{
    if (unit->bytes[0] == '-')
        return NOT_SUPPORTED;
    memory->total = memory->free = strtoull(unit->bytes, NULL, 10);
    memory->used = unit->used;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(Unit *unit, int *major, int *minor)
{
    *major = unit->major;
    *minor = unit->minor;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Unit *unit, unsigned *current, unsigned *pending)
{
    *current = *pending = unit->mig == '1';
    return unit->mig == '-' ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Unit *unit, unsigned *count)
{
    *count = unit->mig == '1' ? 7 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Unit *unit, unsigned index, Unit **slice)
{
    *slice = &unit->slices[index];
    return (*slice)->name[0] ? SUCCESS : NOT_FOUND;
}
